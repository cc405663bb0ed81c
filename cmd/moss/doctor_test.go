package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/moss-run/moss/lifecycle/doctor"
)

func TestTheDoctorsReportIsAlignedAndEndsWithAVerdict(t *testing.T) {
	r := doctor.Report{Checks: []doctor.Check{
		{Name: "fuse", Verdict: doctor.Fail, Found: "open /dev/fuse: no such file or directory", Cost: "no container can run", Remedy: "sudo modprobe fuse"},
		{Name: "subordinate-ids", Verdict: doctor.OK, Found: "65537 ids"},
		{Name: "cgroups", Verdict: doctor.Warn, Found: "not delegated", Cost: "no limits", Remedy: "ask"},
	}}
	const want = `fail  fuse             open /dev/fuse: no such file or directory
                       cost: no container can run
                       mend: sudo modprobe fuse
ok    subordinate-ids  65537 ids
warn  cgroups          not delegated
                       cost: no limits
                       mend: ask

Containers cannot run here yet: 1 failure, 1 warning.
`
	var b bytes.Buffer
	if err := printReport(&b, r, false); err != nil || b.String() != want {
		t.Errorf("got\n%s(%v)", b.String(), err)
	}
	b.Reset()
	if err := printReport(&b, r, true); err != nil || !strings.HasPrefix(b.String(), "\x1b[31mfail\x1b[0m  fuse ") {
		t.Errorf("got\n%s(%v)", b.String(), err)
	}
}
