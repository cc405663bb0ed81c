package userns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/sys/user"
	"golang.org/x/sys/unix"
)

// subordinate are a user's ranges as the machine gives them out (subuid(5), subgid(5)), or the reason why there are
// none. Group ranges too are listed under the user's name.
func subordinate(uid int) (uids, gids []user.SubID, reason string) {
	names := namesOf(uid)
	where := "/etc/subuid and /etc/subgid"
	if source := subIDSource("/etc/nsswitch.conf"); source != "" && source != "files" {
		where = "the subid source " + source + " of /etc/nsswitch.conf"
		var err error
		if uids, err = askSubIDs(names[0]); err == nil {
			gids, err = askSubIDs("-g", names[0])
		}
		if err != nil {
			return nil, nil, fmt.Sprintf("%s cannot be asked: %v", where, err)
		}
	} else {
		uids, gids = subIDsOf("/etc/subuid", names...), subIDsOf("/etc/subgid", names...)
	}
	if len(uids) == 0 || len(gids) == 0 {
		return nil, nil, "no range for " + names[0] + " in " + where
	}
	return uids, gids, ""
}

// namesOf are the ways in which a user may be written in such a file.
func namesOf(uid int) []string {
	number := strconv.Itoa(uid)
	if u, err := user.LookupUid(uid); err == nil {
		return []string{u.Name, number}
	} else if n := os.Getenv("USER"); n != "" {
		return []string{n, number} // a user of a directory service, whom /etc/passwd does not know
	}
	return []string{number}
}

// subIDsOf are the ranges of some owners, or of all when none is named, in a file of subuid(5)'s form. A line that says
// nothing sensible is nobody's.
func subIDsOf(file string, names ...string) []user.SubID {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	return parseSubIDs(f, names)
}

func parseSubIDs(r io.Reader, names []string) (out []user.SubID) {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(parts) == 3 && (len(names) == 0 || slices.Contains(names, parts[0])) {
			out = appendRange(out, parts[0], parts[1], parts[2])
		}
	}
	return out
}

func appendRange(to []user.SubID, name, start, count string) []user.SubID {
	s, err1 := strconv.ParseInt(start, 10, 64)
	n, err2 := strconv.ParseInt(count, 10, 64)
	if err1 != nil || err2 != nil || s < 1 || n < 1 || s > math.MaxUint32 || n > math.MaxUint32 || s+n > math.MaxUint32 {
		return to
	}
	return append(to, user.SubID{Name: name, SubID: s, Count: n})
}

// subIDSource is the first source of subordinate ids in nsswitch.conf, the only one that shadow's tools use.
func subIDSource(file string) string {
	b, _ := os.ReadFile(file)
	for _, l := range strings.Split(string(b), "\n") {
		l, _, _ = strings.Cut(l, "#")
		if rest, ok := strings.CutPrefix(strings.TrimSpace(l), "subid:"); ok {
			if f := strings.Fields(rest); len(f) > 0 {
				return f[0]
			}
		}
	}
	return ""
}

// askSubIDs asks shadow's getsubids, which loads the source: "0: name 100000 65536" a line.
func askSubIDs(args ...string) ([]user.SubID, error) {
	out, err := exec.Command("getsubids", args...).Output()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return nil, nil // it ends with 1 when there are no ranges
	}
	if err != nil {
		return nil, err
	}
	return parseGetSubIDs(string(out)), nil
}

func parseGetSubIDs(text string) (out []user.SubID) {
	for _, l := range strings.Split(text, "\n") {
		if f := strings.Fields(l); len(f) == 4 {
			out = appendRange(out, f[1], f[2], f[3])
		}
	}
	return out
}

// mapHelpersWork says why newuidmap and newgidmap cannot write maps, as far as that can be seen without running them,
// or nothing. Without their privilege they are of no use, and a container with one id is better than none.
func mapHelpersWork() string {
	for _, h := range []struct {
		name       string
		capability uint
	}{{"newuidmap", unix.CAP_SETUID}, {"newgidmap", unix.CAP_SETGID}} {
		path, err := exec.LookPath(h.name)
		if err != nil {
			return h.name + " is not installed"
		}
		if !privileged(path, h.capability) {
			return path + " is neither setuid root nor has the file capability that it needs"
		}
		var fs unix.Statfs_t
		if unix.Statfs(path, &fs) == nil && fs.Flags&unix.ST_NOSUID != 0 {
			return path + " lies on a file system that is mounted nosuid"
		}
	}
	if v, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); err == nil && v == 1 {
		return "no_new_privs is set for this process, so newuidmap gets no privilege"
	}
	return ""
}

// privileged says whether executing path gives a capability, by setuid or by file capabilities: struct vfs_cap_data of
// capabilities(7), a magic word and then the permitted set, little-endian.
func privileged(path string, capability uint) bool {
	var st unix.Stat_t
	if unix.Stat(path, &st) == nil && st.Mode&unix.S_ISUID != 0 && st.Uid == 0 {
		return true
	}
	var b [24]byte
	n, err := unix.Getxattr(path, "security.capability", b[:])
	return err == nil && n >= 8 && b[4+capability/8]&(1<<(capability%8)) != 0
}
