package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/moss-run/moss/lifecycle"
)

func newStopCommand(a *app) *cobra.Command {
	var timeout int
	var signal string
	cmd := &cobra.Command{
		Use:     "stop [OPTIONS] CONTAINER [CONTAINER...]",
		Short:   "Stop one or more running containers",
		Example: "  moss stop --timeout 3 web",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			eng, err := a.engine()
			if err != nil {
				return err
			}
			o := lifecycle.StopOptions{Signal: signal}
			if cmd.Flags().Changed("time") && cmd.Flags().Changed("timeout") {
				return errors.New("conflicting options: cannot specify both --timeout and --time")
			}
			if cmd.Flags().Changed("time") || cmd.Flags().Changed("timeout") {
				o.Timeout = &timeout
			}
			return a.parallel(args, func(name string) error { return eng.Stop(cmd.Context(), name, o) })
		},
	}
	f := cmd.Flags()
	f.StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	f.IntVarP(&timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	f.IntVar(&timeout, "time", 0, "")
	_ = f.MarkHidden("time")
	return cmd
}

func newKillCommand(a *app) *cobra.Command {
	var signal string
	cmd := &cobra.Command{
		Use:     "kill [OPTIONS] CONTAINER [CONTAINER...]",
		Short:   "Kill one or more running containers",
		Example: "  moss kill -s HUP web",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			eng, err := a.engine()
			if err != nil {
				return err
			}
			return a.parallel(args, func(name string) error { return eng.Kill(cmd.Context(), name, signal) })
		},
	}
	cmd.Flags().StringVarP(&signal, "signal", "s", "", "Signal to send to the container")
	return cmd
}

func newWaitCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "wait CONTAINER [CONTAINER...]",
		Short:   "Block until one or more containers stop, then print their exit codes",
		Example: "  moss wait work",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			eng, err := a.engine()
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error {
				code, err := eng.Wait(cmd.Context(), name)
				if err == nil {
					fmt.Fprintln(a.stdout, code)
				}
				return err
			})
		},
	}
}
