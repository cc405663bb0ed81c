package doctor

import (
	"context"
	"fmt"
	"time"
)

// Verdict is how a check came out.
type Verdict string

const (
	OK   Verdict = "ok"
	Warn Verdict = "warn" // containers run, with something missing
	Fail Verdict = "fail" // `run` does not work
)

// Check is one thing that was looked at. The JSON keys and the names are kept stable for scripts.
type Check struct {
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Found   string  `json:"found"`            // what there is
	Cost    string  `json:"cost,omitempty"`   // what the user goes without
	Remedy  string  `json:"remedy,omitempty"` // the line that mends it
}

// Report is all checks, in a fixed order.
type Report struct {
	OK     bool    `json:"ok"` // no check failed: `run` can work
	Checks []Check `json:"checks"`
}

// Options say what to look at.
type Options struct {
	Root  string        // the store's folder, which need not be there yet
	Limit time.Duration // for each check; 0: defaultLimit
	// RunDir finds (or makes) the folder for sockets and mount points.
	RunDir func() (string, error)
	// Overlay mounts a writable layer with its upper on the file system of dir, and says why that does not work.
	Overlay func(ctx context.Context, dir string) error
}

// defaultLimit is longer than what the trial of the overlay gives itself before it says that it hangs.
const defaultLimit = 25 * time.Second

// checks are in the order in which they are printed: what everything else stands on comes first.
var checks = []struct {
	name string
	run  func(context.Context, Options) Check
	// silence is the verdict when there is no answer in time.
	silence Verdict
}{
	{"user-namespaces", checkUserNamespaces, Fail},
	{"subordinate-ids", checkSubordinateIDs, Warn},
	{"id-map-helpers", checkIDMapHelpers, Warn},
	{"fuse", checkFuse, Fail},
	{"overlay", checkOverlay, Fail},
	{"store", checkStore, Fail},
	{"space", checkSpace, Warn},
	{"runtime-folder", checkRuntimeFolder, Fail},
	{"tun", checkTun, Fail},
	{"seccomp", checkSeccomp, Fail},
	{"cgroups", checkCgroups, Warn},
}

// Run does all checks, side by side.
func Run(ctx context.Context, o Options) Report {
	if o.Limit <= 0 {
		o.Limit = defaultLimit
	}
	r := Report{OK: true, Checks: make([]Check, len(checks))}
	done := make([]chan Check, len(checks))
	for i, c := range checks {
		done[i] = make(chan Check, 1)
		go func() { done[i] <- c.run(ctx, o) }()
	}
	limit := time.NewTimer(o.Limit)
	defer limit.Stop()
	over := false
	for i, c := range checks {
		// A check that hangs (a file system whose server is gone) cannot be ended: it is left behind, and ends with
		// the process.
		if !over {
			select {
			case r.Checks[i] = <-done[i]:
			case <-limit.C:
				over = true
			case <-ctx.Done():
				over = true
			}
		}
		if over && r.Checks[i].Verdict == "" {
			select {
			case r.Checks[i] = <-done[i]:
			default:
				r.Checks[i] = Check{Verdict: c.silence, Found: fmt.Sprintf("no answer in %s", o.Limit),
					Cost: "moss may hang here too", Remedy: "look for a file system whose server does not answer: cat /proc/mounts"}
			}
		}
		r.Checks[i].Name = c.name
		if r.Checks[i].Verdict == Fail {
			r.OK = false
		}
	}
	return r
}
