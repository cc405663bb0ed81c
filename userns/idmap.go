package userns

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Kind is how ids are had on this machine.
type Kind string

const (
	// Subordinate: the caller has ranges in /etc/subuid and /etc/subgid, and newuidmap and newgidmap write them.
	Subordinate Kind = "subordinate"
	// Alone: only the caller's own id is there; it is the container's root.
	Alone Kind = "alone"
	// Root: the caller is root, and the container's ids come from a range that is nobody's.
	Root Kind = "root"
)

// Mapping is what ids there are. Outer is the namespace of the monitor, in terms of the caller's ids; Inner is the
// container's own, in terms of the outer one's.
type Mapping struct {
	Kind                 Kind
	Reason               string // why not something better; empty when there is nothing better
	OuterUIDs, OuterGIDs []specs.LinuxIDMapping
	InnerUIDs, InnerGIDs []specs.LinuxIDMapping
}

// String is the mapping of uids in words, container ids first.
func (m Mapping) String() string {
	var parts []string
	for _, r := range m.OuterUIDs {
		parts = append(parts, fmt.Sprintf("%d->%d (%d)", r.ContainerID, r.HostID, r.Size))
	}
	return string(m.Kind) + " " + strings.Join(parts, " ")
}

// rootRange is the first of the 65,536 ids that containers of root get when /etc/subuid reserves none for root or
// "containers": high enough that no login is there.
const (
	rootRange     = 0x7f000000
	rootRangeSize = 65536
)

// Detect finds the best mapping that this machine allows the caller. It fails only when the caller's own id cannot be
// told.
func Detect() (Mapping, error) {
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		return rootMapping()
	}
	alone := func(reason string) Mapping {
		return Mapping{Kind: Alone, Reason: reason,
			OuterUIDs: one(uid), OuterGIDs: one(gid), InnerUIDs: one(0), InnerGIDs: one(0)}
	}
	uids, gids := subIDs("/etc/subuid", uid), subIDs("/etc/subgid", uid)
	if len(uids) == 0 || len(gids) == 0 {
		return alone("no range in /etc/subuid and /etc/subgid"), nil
	}
	for _, helper := range []string{"newuidmap", "newgidmap"} {
		if _, err := exec.LookPath(helper); err != nil {
			return alone(helper + " is not installed"), nil
		}
	}
	m := Mapping{Kind: Subordinate, OuterUIDs: outer(uid, uids), OuterGIDs: outer(gid, gids)}
	m.InnerUIDs, m.InnerGIDs = same(m.OuterUIDs), same(m.OuterGIDs)
	return m, nil
}

// one maps id 0 to host, and nothing else.
func one(host int) []specs.LinuxIDMapping {
	return []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(host), Size: 1}}
}

// outer maps 0 to the caller and the ids from 1 on to the ranges, one after the other.
func outer(self int, ranges []user.SubID) []specs.LinuxIDMapping {
	maps := one(self)
	next := uint32(1)
	for _, r := range ranges {
		maps = append(maps, specs.LinuxIDMapping{ContainerID: next, HostID: uint32(r.SubID), Size: uint32(r.Count)})
		next += uint32(r.Count)
	}
	return maps
}

// same is the identity over all ids of maps. It keeps their ranges apart: the kernel takes a range only when it lies
// in one of the parent's.
func same(maps []specs.LinuxIDMapping) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, r := range maps {
		out = append(out, specs.LinuxIDMapping{ContainerID: r.ContainerID, HostID: r.ContainerID, Size: r.Size})
	}
	return out
}

// rootMapping keeps 0 as 0 in the outer namespace, so that the monitor can reach the caller's files, and puts the
// container's ids behind it: the container's root is id 1 of the outer namespace, and nobody on the host.
func rootMapping() (Mapping, error) {
	own, err := user.ParseIDMapFile("/proc/self/uid_map")
	if err != nil {
		return Mapping{}, fmt.Errorf("read the caller's own ids: %w", err)
	}
	start, size := int64(rootRange), int64(rootRangeSize)
	if r := append(subIDsOf("/etc/subuid", "root", "0"), subIDsOf("/etc/subuid", "containers")...); len(r) > 0 {
		start, size = r[0].SubID, r[0].Count
	}
	if last := own[len(own)-1]; len(own) != 1 || last.ID+last.Count < start+size {
		// In a namespace with few ids (a container): the upper half of what is there.
		var total int64
		for _, r := range own {
			total = max(total, r.ID+r.Count)
		}
		if total < 2 {
			return Mapping{Kind: Alone, Reason: "this root has no other ids", OuterUIDs: one(0), OuterGIDs: one(0), InnerUIDs: one(0), InnerGIDs: one(0)}, nil
		}
		start, size = 1, total-1
	}
	n := uint32(min(size, rootRangeSize))
	m := Mapping{Kind: Root,
		OuterUIDs: append(one(0), specs.LinuxIDMapping{ContainerID: 1, HostID: uint32(start), Size: n}),
		InnerUIDs: []specs.LinuxIDMapping{{ContainerID: 0, HostID: 1, Size: n}}}
	m.OuterGIDs, m.InnerGIDs = m.OuterUIDs, m.InnerUIDs
	return m, nil
}

// subIDs are the ranges of a user in a file of subuid(5)'s form: lines by name and by number both count, and all of
// them are used.
func subIDs(file string, uid int) []user.SubID {
	names := []string{fmt.Sprint(uid)}
	if u, err := user.LookupUid(uid); err == nil {
		names = append(names, u.Name)
	} else if n := os.Getenv("USER"); n != "" {
		names = append(names, n) // a user of a directory service, whom /etc/passwd does not know
	}
	return subIDsOf(file, names...)
}

func subIDsOf(file string, names ...string) []user.SubID {
	all, err := user.ParseSubIDFileFilter(file, func(s user.SubID) bool {
		for _, n := range names {
			if s.Name == n && s.SubID > 0 && s.Count > 0 && s.SubID+s.Count <= 1<<32-1 {
				return true
			}
		}
		return false
	})
	if err != nil {
		return nil
	}
	// The kernel takes at most 340 lines in a map (user_namespaces(7)); nobody has more ranges than a few.
	return all[:min(len(all), 300)]
}
