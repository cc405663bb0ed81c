package erofs

import "golang.org/x/sys/unix"

func setNlink(st *unix.Stat_t, n uint32) { st.Nlink = uint64(n) }
