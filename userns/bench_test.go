package userns

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/profiles/seccomp"
	"golang.org/x/sys/unix"
)

// BenchmarkStart tells how long it takes from Start to the command's execution, and to its end, with docker's profile.
// MOSS_INIT names a built moss-init; without it the test binary is the init, which costs its package initialisation.
func BenchmarkStart(b *testing.B) {
	m, err := Detect()
	if err != nil {
		b.Fatal(err)
	}
	s := testSpec(rootfs(b), "true")
	s.Linux.UIDMappings, s.Linux.GIDMappings = m.InnerUIDs, m.InnerGIDs
	if s.Linux.Seccomp, err = seccomp.GetDefaultProfile(s); err != nil {
		b.Fatal(err)
	}
	for _, init := range []bool{false, true} {
		b.Run(fmt.Sprintf("init=%v", init), func(b *testing.B) {
			text, _ := json.Marshal(order{Spec: s, Init: init, Times: b.N})
			cmd := &exec.Cmd{Path: "/proc/self/exe", Args: []string{"test-monitor"}, Stdin: strings.NewReader(string(text)), Env: os.Environ()}
			var out strings.Builder
			cmd.Stdout = &out
			if err := StartOuter(cmd, m); err != nil {
				b.Skip(err)
			}
			if err := cmd.Wait(); err != nil {
				b.Fatal(err)
			}
			var res outcome
			if err := json.Unmarshal([]byte(out.String()), &res); err != nil || res.Err != "" {
				b.Fatal(err, res.Err)
			}
			slices.Sort(res.Started)
			slices.Sort(res.Ended)
			b.ReportMetric(float64(res.Started[b.N/2].Microseconds())/1000, "ms-to-exec")
			b.ReportMetric(float64(res.Ended[b.N/2].Microseconds())/1000, "ms-to-end")
		})
	}
}

// runTimes runs an order again and again, in a mount namespace that starts afresh each time.
func runTimes(o order, res *outcome) error {
	helper := os.Getenv("MOSS_INIT")
	if helper == "" {
		helper = "/proc/self/exe"
	}
	path, done, err := Seal(helper)
	if err != nil {
		return err
	}
	defer done()
	for range o.Times {
		root := o.Spec.Root.Path
		if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
			return err
		}
		began := time.Now()
		p, err := Start(context.Background(), RunConfig{Spec: o.Spec, Init: o.Init, HelperPath: path, HelperArgs: []string{"test-init"}})
		if err != nil {
			return err
		}
		res.Started = append(res.Started, time.Since(began))
		if _, _, err := p.Wait(); err != nil {
			return err
		}
		res.Ended = append(res.Ended, time.Since(began))
		if err := unix.Unmount(root, unix.MNT_DETACH); err != nil {
			return err
		}
	}
	return nil
}
