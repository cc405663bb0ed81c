package main

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/moby/term"
	"github.com/spf13/cobra"

	"github.com/moss-run/moss/lifecycle"
)

func newStartCommand(a *app) *cobra.Command {
	var attach, interactive bool
	var detachKeys string
	cmd := &cobra.Command{
		Use:     "start [OPTIONS] CONTAINER [CONTAINER...]",
		Short:   "Start one or more stopped containers",
		Example: "  moss start -ai work",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			eng, err := a.engine()
			if err != nil {
				return err
			}
			if attach || interactive {
				if len(args) > 1 {
					return errors.New("you cannot start and attach multiple containers at once")
				}
				return a.startAttached(cmd.Context(), eng, args[0], interactive, detachKeys)
			}
			var failed []string
			for _, name := range args {
				_, err := eng.Start(cmd.Context(), name, lifecycle.StartOptions{})
				if err != nil && !runsAlready(eng, name, err) {
					fmt.Fprintf(a.stderr, "Error response from daemon: %s\n", plain(err))
					failed = append(failed, name)
					continue
				}
				fmt.Fprintln(a.stdout, name)
			}
			if len(failed) > 0 {
				return exitError{1, fmt.Errorf("Error: failed to start containers: %s", strings.Join(failed, ", "))}
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	f.BoolVarP(&interactive, "interactive", "i", false, "Attach container's STDIN")
	f.StringVar(&detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

// runsAlready says whether a start failed only because there is nothing to do: docker counts that as done.
func runsAlready(eng *lifecycle.Engine, name string, err error) bool {
	if !errors.Is(err, errdefs.ErrConflict) {
		return false
	}
	info, ierr := eng.Inspect(context.Background(), name, false)
	return ierr == nil && info.State.Running
}

func (a *app) startAttached(ctx context.Context, eng *lifecycle.Engine, name string, interactive bool, detachKeys string) error {
	info, err := eng.Inspect(ctx, name, false)
	if err != nil {
		return err
	}
	if info.State.Running {
		return fmt.Errorf("container %s is already running: attaching to a running container is not supported by moss yet", name)
	}
	at := lifecycle.AttachOptions{Stdout: a.stdout, TTY: info.Config.Tty}
	if !info.Config.Tty {
		at.Stderr = a.stderr
	}
	if interactive && info.Config.OpenStdin {
		at.Stdin = a.stdin
	}
	if detachKeys == "" {
		detachKeys = "ctrl-p,ctrl-q"
	}
	if at.DetachKeys, err = term.ToBytes(detachKeys); err != nil {
		return fmt.Errorf("invalid detach keys (%s): %w", detachKeys, err)
	}
	startCtx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err = a.front(startCtx, stop, eng, info.ID, at, !info.Config.Tty, info.HostConfig, nil)
	var exit exitError
	if errors.As(err, &exit) && exit.err != nil && exit.code >= 125 && exit.code <= 127 {
		// A start that fails is an ordinary error here, and not docker run's.
		fmt.Fprintf(a.stderr, "Error response from daemon: %s\n", plain(exit.err))
		return exitError{1, fmt.Errorf("Error: failed to start containers: %s", name)}
	}
	return err
}
