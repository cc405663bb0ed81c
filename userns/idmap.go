package userns

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"slices"
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
// "containers": high enough that no login is there. A line of /etc/subuid or /etc/subgid that has some of them moves it up.
const (
	rootRange     = 0x7f000000
	rootRangeSize = 65536
)

// maxRanges bounds the lines of a map: the kernel takes 340 of them, but no more than a page of text in one write.
const maxRanges = 100

// Detect finds the best mapping that this machine allows the caller. It fails only when the caller's own ids cannot be
// told.
func Detect() (Mapping, error) {
	ownUIDs, err := ownIDs("uid")
	if err != nil {
		return Mapping{}, err
	}
	ownGIDs, err := ownIDs("gid")
	if err != nil {
		return Mapping{}, err
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		return rootMapping(ownUIDs, ownGIDs), nil
	}
	uids, gids, reason := subordinate(uid)
	if reason != "" {
		return alone(uid, gid, reason), nil
	}
	uids, gids = usable(uids, uid, ownUIDs), usable(gids, gid, ownGIDs)
	if len(uids) == 0 || len(gids) == 0 {
		return alone(uid, gid, "the ranges in /etc/subuid and /etc/subgid lie outside of the ids that there are here (/proc/self/uid_map)"), nil
	}
	if reason := mapHelpersWork(); reason != "" {
		return alone(uid, gid, reason), nil
	}
	m := Mapping{Kind: Subordinate, OuterUIDs: outer(uid, uids), OuterGIDs: outer(gid, gids)}
	m.InnerUIDs, m.InnerGIDs = inner(m.OuterUIDs, 0), inner(m.OuterGIDs, 0)
	return m, nil
}

// ownIDs are the ids that exist in the caller's own user namespace.
func ownIDs(kind string) ([]user.IDMap, error) {
	own, err := user.ParseIDMapFile("/proc/self/" + kind + "_map")
	if err != nil {
		return nil, fmt.Errorf("read the caller's own ids: %w", err)
	}
	return own, nil
}

func alone(uid, gid int, reason string) Mapping {
	return Mapping{Kind: Alone, Reason: reason,
		OuterUIDs: one(uid), OuterGIDs: one(gid), InnerUIDs: one(0), InnerGIDs: one(0)}
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

// inner maps the ids from 0 on to those of an outer map from first on. It keeps the outer map's ranges apart: the
// kernel takes a range only when it lies in one of the parent's.
func inner(maps []specs.LinuxIDMapping, first uint32) []specs.LinuxIDMapping {
	var out []specs.LinuxIDMapping
	for _, r := range maps {
		if r.ContainerID >= first {
			out = append(out, specs.LinuxIDMapping{ContainerID: r.ContainerID - first, HostID: r.ContainerID, Size: r.Size})
		}
	}
	return out
}

// usable leaves out what the kernel would refuse the whole map for: ranges with ids that do not exist in own, or that
// are had already (a user has a line by name and the same by number), and more ids than there can be.
func usable(ranges []user.SubID, self int, own []user.IDMap) []user.SubID {
	kept := []user.SubID{}
	taken := []user.SubID{{SubID: int64(self), Count: 1}}
	total := int64(1)
	for _, r := range ranges {
		overlaps := func(t user.SubID) bool { return r.SubID < t.SubID+t.Count && t.SubID < r.SubID+r.Count }
		exists := func(m user.IDMap) bool { return r.SubID >= m.ID && r.SubID+r.Count <= m.ID+m.Count }
		if len(kept) == maxRanges || total+r.Count > math.MaxUint32 || slices.ContainsFunc(taken, overlaps) || !slices.ContainsFunc(own, exists) {
			continue
		}
		kept, taken, total = append(kept, r), append(taken, r), total+r.Count
	}
	return kept
}

// rootMapping keeps 0 as 0 in the outer namespace, so that the monitor can reach the caller's files, and puts the
// container's ids behind it: the container's root is id 1 of the outer namespace, and nobody on the host.
func rootMapping(ownUIDs, ownGIDs []user.IDMap) Mapping {
	uids, gids := rootRanges("/etc/subuid", ownUIDs), rootRanges("/etc/subgid", ownGIDs)
	if len(uids) == 0 || len(gids) == 0 {
		return alone(0, 0, "this root is that of a user namespace with no other ids (/proc/self/uid_map)")
	}
	m := Mapping{Kind: Root, OuterUIDs: outer(0, uids), OuterGIDs: outer(0, gids)}
	m.InnerUIDs, m.InnerGIDs = inner(m.OuterUIDs, 1), inner(m.OuterGIDs, 1)
	return m
}

// rootRanges are the ids for containers of root.
func rootRanges(file string, own []user.IDMap) []user.SubID {
	for _, names := range [][]string{{"root", "0"}, {"containers"}} {
		if r := usable(subIDsOf(file, names...), 0, own); len(r) > 0 {
			return r
		}
	}
	all := subIDsOf(file)
	slices.SortFunc(all, func(a, b user.SubID) int { return cmp.Compare(a.SubID, b.SubID) })
	start := int64(rootRange)
	for _, r := range all {
		if r.SubID < start+rootRangeSize && start < r.SubID+r.Count {
			start = r.SubID + r.Count
		}
	}
	if start+rootRangeSize <= math.MaxUint32 {
		if r := usable([]user.SubID{{SubID: start, Count: rootRangeSize}}, 0, own); len(r) > 0 {
			return r
		}
	}
	// In a namespace with few ids (in a container): the largest range that there is, but for root itself.
	var best user.SubID
	for _, m := range own {
		r := user.SubID{SubID: m.ID, Count: m.Count}
		if r.SubID == 0 {
			r.SubID, r.Count = 1, r.Count-1
		}
		r.Count = min(r.Count, rootRangeSize)
		if r.Count > best.Count {
			best = r
		}
	}
	if best.Count < 1 {
		return nil
	}
	return []user.SubID{best}
}
