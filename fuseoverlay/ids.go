package fuseoverlay

import "github.com/opencontainers/runtime-spec/specs-go"

// overflowID stands for an owner that has no id here (proc(5), /proc/sys/kernel/overflowuid).
const overflowID = 65534

// idMap turns the container's ids, which a Tree holds, into ids of the user namespace that the file system is mounted
// in. With a single mapped id every owner shows as that one: a true owner that cannot be expressed would make the file
// unwritable even for the container's root.
type idMap struct {
	ranges   []specs.LinuxIDMapping
	identity uint32 // ids below it map to themselves
	other    uint32 // for ids outside of all ranges
	single   bool
}

func newIDMap(ranges []specs.LinuxIDMapping) idMap {
	m := idMap{ranges: ranges}
	if len(ranges) == 0 {
		m.identity = ^uint32(0)
		return m
	}
	if r := ranges[0]; r.ContainerID == 0 && r.HostID == 0 {
		m.identity = r.Size
	}
	if len(ranges) == 1 && ranges[0].Size == 1 {
		m.other, m.single = ranges[0].HostID, true
		return m
	}
	if id, ok := m.find(overflowID); ok {
		m.other = id
	} else {
		m.other, _ = m.find(0)
	}
	return m
}

func (m *idMap) find(id uint32) (uint32, bool) {
	for _, r := range m.ranges {
		if id >= r.ContainerID && id-r.ContainerID < r.Size {
			return r.HostID + (id - r.ContainerID), true
		}
	}
	return 0, false
}

// host is the id in the mounting namespace for a container's id. It is false when another identity had to stand in for
// it; the only one there is does not count as another.
func (m *idMap) host(id uint32) (uint32, bool) {
	if id < m.identity {
		return id, true
	}
	if h, ok := m.find(id); ok {
		return h, true
	}
	return m.other, m.single
}
