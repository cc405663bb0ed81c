package fuseoverlay

import (
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestIDsAreMapped(t *testing.T) {
	type ids = []specs.LinuxIDMapping
	for _, c := range []struct {
		name     string
		ranges   ids
		id, want uint32
		own      bool
	}{
		{"no map is the identity", nil, 1234, 1234, true},
		{"one id stands for all", ids{{HostID: 0, Size: 1}}, 1234, 0, true},
		{"one id that is shifted", ids{{HostID: 7, Size: 1}}, 0, 7, true},
		{"in the identity", ids{{Size: 65536}}, 65535, 65535, true},
		{"behind the identity is nobody", ids{{Size: 65536}}, 65536, 65534, false},
		{"shifted", ids{{HostID: 1, Size: 65536}}, 1000, 1001, true},
		{"behind a shift is the shifted nobody", ids{{HostID: 1, Size: 65536}}, 70000, 65535, false},
		{"a range without nobody falls to root", ids{{HostID: 1, Size: 100}}, 100, 1, false},
		{"second range", ids{{Size: 1}, {ContainerID: 1, HostID: 100, Size: 10}}, 10, 109, true},
		{"hole at the top", ids{{ContainerID: 0, HostID: 5, Size: 10}}, ^uint32(0), 5, false},
	} {
		m := newIDMap(c.ranges)
		if got, own := m.host(c.id); got != c.want || own != c.own {
			t.Errorf("%s: %d, %v; want %d, %v", c.name, got, own, c.want, c.own)
		}
	}
}
