package userns

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/sys/user"
	"github.com/opencontainers/runtime-spec/specs-go"
)

var allIDs = []user.IDMap{{ID: 0, ParentID: 0, Count: 1<<32 - 1}}

func TestRangesOfAUserAreUsedTogether(t *testing.T) {
	text := "alice:100000:65536\nbob:165536:65536\n1001:300000:10\n\n# no\nalice:x:5\nalice:5\nalice:-1:5\nalice:4294967290:99\n1001:100000:65536\n"
	got := usable(parseSubIDs(strings.NewReader(text), []string{"alice", "1001"}), 1001, allIDs)
	m := Mapping{OuterUIDs: outer(1001, got)}
	if s := m.String(); s != " 0->1001 (1) 1->100000 (65536) 65537->300000 (10)" {
		t.Error(s)
	}
	want := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 0, Size: 1}, {ContainerID: 1, HostID: 1, Size: 65536}, {ContainerID: 65537, HostID: 65537, Size: 10}}
	if in := inner(m.OuterUIDs, 0); !reflect.DeepEqual(in, want) {
		t.Error(in)
	}
}

func TestRangesThatTheKernelWouldRefuseAreLeftOut(t *testing.T) {
	own := []user.IDMap{{ID: 0, Count: 1}, {ID: 1000, Count: 1000}, {ID: 100000, Count: 1000}}
	for _, c := range []struct {
		r    user.SubID
		want int
	}{
		{user.SubID{SubID: 100000, Count: 1000}, 1},
		{user.SubID{SubID: 100000, Count: 1001}, 0}, // more than there is
		{user.SubID{SubID: 900, Count: 200}, 0},     // begins where there is nothing
		{user.SubID{SubID: 1000, Count: 10}, 0},     // the user itself
	} {
		if got := usable([]user.SubID{c.r}, 1001, own); len(got) != c.want {
			t.Errorf("%v: %v", c.r, got)
		}
	}
}

func TestRootGetsIDsThatAreNobodys(t *testing.T) {
	for _, c := range []struct {
		name, file string
		own        []user.IDMap
		want       string
	}{
		{"root's line", "containers:200000:7\nroot:300000:5\nroot:400000:6\n", allIDs, "root 0->0 (1) 1->300000 (5) 6->400000 (6)"},
		{"the line of containers", "alice:100000:65536\ncontainers:200000:7\n", allIDs, "root 0->0 (1) 1->200000 (7)"},
		{"no line", "alice:100000:65536\n", allIDs, "root 0->0 (1) 1->2130706432 (65536)"},
		{"a line in the way", "x:2130771968:70000\nalice:2130706000:65536\n", allIDs, "root 0->0 (1) 1->2130841968 (65536)"},
		{"in a rootless container", "root:300000:5\n", []user.IDMap{{ID: 0, Count: 1}, {ID: 1, Count: 65536}}, "root 0->0 (1) 1->1 (65536)"},
		{"in a small namespace", "", []user.IDMap{{ID: 0, Count: 10}}, "root 0->0 (1) 1->1 (9)"},
		{"alone", "root:300000:5\n", []user.IDMap{{ID: 0, Count: 1}}, "root 0->0 (1)"},
		{"no ids at all", "", nil, "root 0->0 (1)"},
	} {
		file := filepath.Join(t.TempDir(), "subuid")
		if err := os.WriteFile(file, []byte(c.file), 0o600); err != nil {
			t.Fatal(err)
		}
		m := Mapping{Kind: Root, OuterUIDs: outer(0, rootRanges(file, c.own))}
		if m.String() != c.want {
			t.Errorf("%s: %s, want %s", c.name, m, c.want)
		}
		for _, r := range inner(m.OuterUIDs, 1) {
			if r.ContainerID != r.HostID-1 {
				t.Errorf("%s: inner %v", c.name, r)
			}
		}
	}
}

func TestTheSubIDSource(t *testing.T) {
	for text, want := range map[string]string{
		"passwd: files\n": "", "subid: files\n": "files", "# subid: sss\n": "", "  subid:\tsss files # x\n": "sss", "subid:\n": "",
	} {
		file := filepath.Join(t.TempDir(), "nsswitch.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := subIDSource(file); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
	got := parseGetSubIDs("0: alice 100000 65536\n1: alice 300000 10\nError fetching ranges\n")
	if len(got) != 2 || got[1].SubID != 300000 || got[1].Count != 10 {
		t.Error(got)
	}
}

// Whatever stands in the file, what comes of it is a map that the kernel takes.
func FuzzSubIDs(f *testing.F) {
	f.Add([]byte("alice:100000:65536\n"))
	f.Add([]byte("alice:1:4294967295\nalice:4294967295:1\nalice:-5:9223372036854775807\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		maps := outer(1000, usable(parseSubIDs(bytes.NewReader(text), nil), 1000, allIDs))
		next := uint64(0)
		type span struct{ first, end uint64 }
		var seen []span
		for _, m := range maps {
			if uint64(m.ContainerID) != next || m.Size == 0 {
				t.Fatalf("%v", maps)
			}
			next += uint64(m.Size)
			s := span{uint64(m.HostID), uint64(m.HostID) + uint64(m.Size)}
			for _, o := range seen {
				if s.first < o.end && o.first < s.end {
					t.Fatalf("ids twice: %v", maps)
				}
			}
			if seen = append(seen, s); s.end > 1<<32-1 {
				t.Fatalf("ids that there are not: %v", maps)
			}
		}
		if next > 1<<32-1 || len(maps) > maxRanges+1 {
			t.Fatalf("%d ids in %d ranges", next, len(maps))
		}
	})
}
