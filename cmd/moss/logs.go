package main

import (
	"fmt"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/moss-run/moss/lifecycle"
)

func newLogsCommand(a *app) *cobra.Command {
	var o lifecycle.LogsOptions
	var tail, since, until string
	cmd := &cobra.Command{
		Use:                   "logs [OPTIONS] CONTAINER",
		Short:                 "Fetch the logs of a container",
		Example:               "  moss logs -f --tail 100 web\n  moss logs --since 10m web",
		Args:                  oneArgument,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			now := time.Now()
			var err error
			if o.Since, err = parseTime(since, now); err != nil {
				return fmt.Errorf(`invalid value for "since": %w`, err)
			}
			if o.Until, err = parseTime(until, now); err != nil {
				return fmt.Errorf(`invalid value for "until": %w`, err)
			}
			// docker takes whatever is no number, and any negative number, for "all".
			if o.Tail, err = strconv.Atoi(tail); err != nil || o.Tail < 0 {
				o.Tail = -1
			}
			eng, err := a.engine()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if err := eng.Logs(ctx, args[0], o, a.stdout, a.stderr); err != nil {
				return engineError(err)
			}
			if ctx.Err() != nil {
				return exitError{code: 130}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	f.StringVarP(&tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	f.StringVar(&since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.StringVar(&until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	f.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	f.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	return cmd
}

// localTimes are the forms of a point in time without a zone, which is then the local one.
var localTimes = []string{"2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02T15", "2006-01-02"}

// zonedTimes are the same with a zone.
var zonedTimes = []string{"2006-01-02T15:04:05.999999999Z07:00", "2006-01-02T15:04Z07:00", "2006-01-02T15Z07:00", "2006-01-02Z07:00"}

// parseTime takes what docker takes for a point in time: a duration before now, seconds since 1970 with a fraction, or
// a date of RFC 3339, cut off where it likes. Empty is the zero time.
func parseTime(s string, now time.Time) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	for _, layout := range zonedTimes {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	for _, layout := range localTimes {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	whole, fraction, _ := strings.Cut(s, ".")
	seconds, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || len(fraction) > 9 || strings.Trim(fraction, "0123456789") != "" {
		return time.Time{}, fmt.Errorf("%q is no time: want a duration such as 42m, a date such as 2013-01-02T13:23:37Z, or seconds since 1970", s)
	}
	nanos, _ := strconv.ParseInt(fraction+strings.Repeat("0", 9-len(fraction)), 10, 64)
	return time.Unix(seconds, nanos), nil
}
