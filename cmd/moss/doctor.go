package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moss-run/moss/fuseoverlay"
	"github.com/moss-run/moss/lifecycle"
	"github.com/moss-run/moss/lifecycle/doctor"
)

func newDoctorCommand(a *app) *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "doctor [OPTIONS]",
		Short: "Check what containers need on this machine, and how to mend what is missing",
		Long: "Check what containers need on this machine: each thing with what was found, what its lack costs, and the line that\n" +
			"mends it. The exit code is 0 only when containers can run.",
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r := doctor.Run(cmd.Context(), doctor.Options{Root: a.root, RunDir: lifecycle.RunDir, Overlay: probeOverlay})
			if asJSON {
				enc := json.NewEncoder(a.stdout)
				enc.SetEscapeHTML(false)
				enc.SetIndent("", "  ")
				if err := enc.Encode(r); err != nil {
					return err
				}
			} else if err := printReport(a.stdout, r, wantsColor(a.stdout)); err != nil {
				return err
			}
			if !r.OK {
				return exitError{code: 1}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "Print the report as JSON")
	return cmd
}

const probeRole = "moss-probe"

// The overlay is tried by this binary itself, in namespaces of its own.
func init() { roles[probeRole] = fuseoverlay.ProbeMain }

// probeOverlay mounts, writes and executes as a container's root would. It is asked anew each time: who runs the doctor
// has just changed something.
func probeOverlay(_ context.Context, dir string) error {
	v, err := fuseoverlay.Probe(dir, fuseoverlay.Prober{Path: "/proc/self/exe", Argv: []string{probeRole}, Env: os.Environ()})
	if err != nil {
		return err
	}
	if !v.OK {
		return errors.New(v.Reason)
	}
	return nil
}

// wantsColor says whether w is a terminal whose user has not asked for plain text (https://no-color.org).
func wantsColor(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && term.IsTerminal(int(f.Fd()))
}

// printReport prints one line for each check; for those that are not well, what it costs and the remedy below it, alone
// on its line so that it can be pasted.
func printReport(w io.Writer, r doctor.Report, color bool) error {
	colors := map[doctor.Verdict]string{doctor.OK: "32", doctor.Warn: "33", doctor.Fail: "31"}
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	var b strings.Builder
	failed, warned := 0, 0
	for _, c := range r.Checks {
		verdict := fmt.Sprintf("%-4s", c.Verdict)
		if color {
			verdict = "\x1b[" + colors[c.Verdict] + "m" + verdict + "\x1b[0m"
		}
		fmt.Fprintf(&b, "%s  %-*s  %s\n", verdict, width, c.Name, c.Found)
		switch c.Verdict {
		case doctor.Fail:
			failed++
		case doctor.Warn:
			warned++
		}
		if c.Verdict != doctor.OK {
			fmt.Fprintf(&b, "%*s  cost: %s\n%*s  mend: %s\n", width+6, "", c.Cost, width+6, "", c.Remedy)
		}
	}
	switch {
	case failed > 0:
		fmt.Fprintf(&b, "\nContainers cannot run here yet: %s, %s.\n", count(failed, "failure"), count(warned, "warning"))
	case warned > 0:
		fmt.Fprintf(&b, "\nContainers can run here, with %s.\n", count(warned, "warning"))
	default:
		b.WriteString("\nContainers can run here.\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
