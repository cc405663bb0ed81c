package erofs

import (
	"path"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// folder is a folder's dirents: blocks of them, each sorted, and sorted from block to block.
func (m *Image) folder(nid uint64) ([]byte, syscall.Errno) {
	n, errno := m.inode(nid)
	if errno != 0 {
		return nil, errno
	}
	if n.mode&unix.S_IFMT != unix.S_IFDIR {
		return nil, syscall.ENOTDIR
	}
	b := m.content(nid, &n)
	if b == nil {
		return nil, syscall.EIO
	}
	return b, 0
}

// dirBlock is one block of dirents.
type dirBlock []byte

func blockOf(data []byte, i int) dirBlock {
	b := data[i*blockSize:]
	return dirBlock(b[:min(len(b), blockSize)])
}

// count is the number of entries; 0 for a block that cannot be right.
func (b dirBlock) count() int {
	if len(b) < direntSize {
		return 0
	}
	first := int(le.Uint16(b[8:]))
	if first%direntSize != 0 || first > len(b) {
		return 0
	}
	return first / direntSize
}

// entry is the i-th of count. ok is false when it cannot be right.
func (b dirBlock) entry(i, count int) (name []byte, nid uint64, kind byte, ok bool) {
	d := b[i*direntSize:]
	start, end := int(le.Uint16(d[8:])), len(b)
	if i+1 < count {
		end = int(le.Uint16(d[direntSize+8:]))
	}
	if start > end || end > len(b) || start < count*direntSize {
		return nil, 0, 0, false
	}
	name = b[start:end]
	if i+1 == count { // the last name in a block ends with the block, or with a NUL
		for len(name) > 0 && name[len(name)-1] == 0 {
			name = name[:len(name)-1]
		}
	}
	return name, le.Uint64(d), d[10], len(name) > 0
}

// Lookup finds a name in a folder.
func (m *Image) Lookup(dir uint64, name string) (uint64, syscall.Errno) {
	data, errno := m.folder(dir)
	if errno != 0 {
		return 0, errno
	}
	// The last block whose first name is not behind the one looked for.
	low, high := 0, (len(data)+blockSize-1)/blockSize
	for high-low > 1 {
		mid := (low + high) / 2
		b := blockOf(data, mid)
		n := b.count()
		if n == 0 {
			return 0, syscall.EIO
		}
		first, _, _, ok := b.entry(0, n)
		if !ok {
			return 0, syscall.EIO
		}
		if text(first) <= name {
			low = mid
		} else {
			high = mid
		}
	}
	if high == 0 {
		return 0, syscall.ENOENT
	}
	b := blockOf(data, low)
	count := b.count()
	if count == 0 {
		return 0, syscall.EIO
	}
	for i, j := 0, count; i < j; {
		mid := (i + j) / 2
		have, nid, _, ok := b.entry(mid, count)
		switch {
		case !ok:
			return 0, syscall.EIO
		case text(have) == name:
			return nid, 0
		case text(have) < name:
			i = mid + 1
		default:
			j = mid
		}
	}
	return 0, syscall.ENOENT
}

// ReadDir emits a folder's entries behind a cookie. A cookie is the entry's place, block times blockSize plus index,
// plus one.
func (m *Image) ReadDir(dir uint64, cookie uint64, emit func(name string, node uint64, mode uint32, next uint64) bool) syscall.Errno {
	data, errno := m.folder(dir)
	if errno != 0 {
		return errno
	}
	blocks := (len(data) + blockSize - 1) / blockSize
	if cookie/blockSize > uint64(blocks) {
		return 0
	}
	block, index := int(cookie/blockSize), int(cookie%blockSize)
	for ; block < blocks; block, index = block+1, 0 {
		b := blockOf(data, block)
		count := b.count()
		if count == 0 {
			return syscall.EIO
		}
		for i := index; i < count; i++ {
			name, nid, kind, ok := b.entry(i, count)
			if !ok {
				return syscall.EIO
			}
			if s := text(name); s == "." || s == ".." {
				continue
			}
			if !emit(text(name), nid, modeOf[kind&7], uint64(block*blockSize+i+1)) {
				return 0
			}
		}
	}
	return 0
}

// Resolve finds a path as a process whose root the tree is would, through at most 40 symlinks.
func (m *Image) Resolve(p string) (uint64, syscall.Errno) {
	todo := strings.Split(p, "/")
	var trail []uint64 // the folders from the root to here
	at := m.Root()
	for links := 0; len(todo) > 0; {
		part := todo[0]
		todo = todo[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			if len(trail) > 0 {
				at, trail = trail[len(trail)-1], trail[:len(trail)-1]
			}
			continue
		}
		next, errno := m.Lookup(at, part)
		if errno != 0 {
			return 0, errno
		}
		target, errno := m.Readlink(next)
		if errno == syscall.EINVAL {
			trail, at = append(trail, at), next
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		if links++; links > 40 {
			return 0, syscall.ELOOP
		}
		if path.IsAbs(target) {
			at, trail = m.Root(), nil
		}
		todo = append(strings.Split(target, "/"), todo...)
	}
	return at, 0
}
