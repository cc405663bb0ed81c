package main

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moss-run/moss/cmd/moss/format"
	"github.com/moss-run/moss/lifecycle"
)

const formatHelp = `Format output: 'table', 'table TEMPLATE', 'json', 'raw' or a Go template`

func newPsCommand(a *app, use string) *cobra.Command {
	var all, quiet, size, noTrunc, latest bool
	var last int
	var text string
	filters := filterFlag{}
	cmd := &cobra.Command{
		Use:                   use + " [OPTIONS]",
		Short:                 "List containers",
		Example:               "  moss " + use + " -a\n  moss " + use + " -q --filter status=exited",
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if text != "" && quiet {
				fmt.Fprintln(a.stderr, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
			}
			if latest && last < 0 {
				last = 1
			}
			out := format.Containers{Format: format.Format(text), Quiet: quiet, Size: size, NoTrunc: noTrunc, Now: time.Now()}
			wantsSize, err := out.Check()
			if err != nil {
				return err
			}
			if wantsSize && !cmd.Flags().Changed("size") {
				size = true
			}
			eng, err := a.engine()
			if err != nil {
				return err
			}
			list, err := eng.List(cmd.Context(), lifecycle.ListOptions{All: all, Last: max(last, 0), Size: size, Filters: filters})
			if err != nil {
				return engineError(err)
			}
			return out.Write(a.stdout, list)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Show all containers (default shows just running)")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only display container IDs")
	f.BoolVarP(&size, "size", "s", false, "Display total file sizes")
	f.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVarP(&latest, "latest", "l", false, "Show the latest created container (includes all states)")
	f.IntVarP(&last, "last", "n", -1, "Show n last created containers (includes all states)")
	f.StringVar(&text, "format", "", formatHelp)
	f.VarP(filters, "filter", "f", "Filter output based on conditions provided")
	return cmd
}

// filterFlag is docker's --filter key=value, given any number of times.
type filterFlag map[string][]string

func (f filterFlag) Type() string { return "filter" }

func (f filterFlag) String() string {
	var kv []string
	for _, k := range slices.Sorted(maps.Keys(f)) {
		for _, v := range f[k] {
			kv = append(kv, k+"="+v)
		}
	}
	return strings.Join(kv, ",")
}

func (f filterFlag) Set(s string) error {
	if s == "" {
		return nil
	}
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return errors.New("invalid argument: bad format of filter (expected name=value)")
	}
	key = strings.ToLower(strings.TrimSpace(key))
	f[key] = append(f[key], strings.TrimSpace(value))
	return nil
}

// engineError is an error as docker's client prints what its engine says.
func engineError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("Error response from daemon: %w", err)
}

// noArguments is docker's complaint about arguments where there can be none.
func noArguments(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return exitError{1, fmt.Errorf("'%[1]s' accepts no arguments\n\nUsage:  %[2]s\n\nRun '%[1]s --help' for more information", cmd.CommandPath(), cmd.UseLine())}
}

// oneArgument is docker's complaint about more or fewer than one.
func oneArgument(cmd *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return exitError{1, fmt.Errorf("'%[1]s' requires 1 argument\n\nUsage:  %[2]s\n\nRun '%[1]s --help' for more information", cmd.CommandPath(), cmd.UseLine())}
}

// atMostOneArgument is docker's complaint about more than one.
func atMostOneArgument(cmd *cobra.Command, args []string) error {
	if len(args) <= 1 {
		return nil
	}
	return exitError{1, fmt.Errorf("'%[1]s' requires at most 1 argument\n\nUsage:  %[2]s\n\nRun '%[1]s --help' for more information", cmd.CommandPath(), cmd.UseLine())}
}
