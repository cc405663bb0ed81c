package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moss-run/moss/cmd/moss/runflags"
	"github.com/moss-run/moss/image"
	"github.com/moss-run/moss/lifecycle"
)

func newRunCommand(a *app) *cobra.Command {
	var flags *runflags.Flags
	cmd := &cobra.Command{
		Use:     "run [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short:   "Create and run a new container from an image",
		Example: "  moss run -it --rm debian bash\n  moss run -d --name web -p 8080:80 nginx",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.run(cmd.Context(), flags, args)
		},
	}
	cmd.Flags().Bool("help", false, "Print usage") // -h is the hostname's
	flags = runflags.Add(cmd.Flags(), runflags.Run)
	cmd.Flags().SetInterspersed(false)
	return cmd
}

func newCreateCommand(a *app) *cobra.Command {
	var flags *runflags.Flags
	cmd := &cobra.Command{
		Use:     "create [OPTIONS] IMAGE [COMMAND] [ARG...]",
		Short:   "Create a new container",
		Example: "  moss create --name web -p 8080:80 nginx",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := flags.Parse(args[0], args[1:])
			if err != nil {
				return exitError{125, err}
			}
			id, err := a.create(cmd.Context(), p, nil)
			if err != nil {
				return exitError{125, engineError(err)}
			}
			fmt.Fprintln(a.stdout, id)
			return nil
		},
	}
	cmd.Flags().Bool("help", false, "Print usage") // -h is the hostname's
	flags = runflags.Add(cmd.Flags(), runflags.Create)
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// atLeast is docker's complaint about missing arguments.
func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return argumentError(cmd, fmt.Sprintf("at least %d argument", n), n)
	}
}

func argumentError(cmd *cobra.Command, want string, n int) error {
	if n != 1 {
		want += "s"
	}
	return exitError{1, fmt.Errorf("'%s' requires %s\n\nUsage:  %s\n\nRun '%[1]s --help' for more information", cmd.CommandPath(), want, cmd.UseLine())}
}

// create makes sure that the image is there, and makes the container.
func (a *app) create(ctx context.Context, p *runflags.Parsed, t *tracer) (string, error) {
	eng, err := a.engine()
	if err != nil {
		return "", err
	}
	if err := claimCIDFile(p.CIDFile); err != nil {
		return "", err
	}
	id, err := a.createFrom(ctx, eng, p, t)
	if err != nil {
		if p.CIDFile != "" {
			os.Remove(p.CIDFile)
		}
		return "", err
	}
	if p.CIDFile != "" {
		if err := os.WriteFile(p.CIDFile, []byte(id), 0o666); err != nil {
			return "", fmt.Errorf("failed to write the container ID to the file: %w", err)
		}
	}
	return id, nil
}

// claimCIDFile makes --cidfile's file, which must not be there yet.
func claimCIDFile(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("container ID file found, make sure the other container isn't running or delete %s", path)
	}
	if err != nil {
		return fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return f.Close()
}

func (a *app) createFrom(ctx context.Context, eng *lifecycle.Engine, p *runflags.Parsed, t *tracer) (string, error) {
	img, err := a.imageFor(ctx, p, t)
	if err != nil {
		return "", err
	}
	config, err := runflags.Merge(img.ContainerConfig(), p)
	if err != nil {
		return "", err
	}
	resp, err := eng.Create(ctx, lifecycle.CreateOptions{
		Name: p.Name, Config: config, HostConfig: p.HostConfig, Networking: p.Networking, Trace: t.of(),
		Image: lifecycle.Image{ID: img.ID, Name: config.Image, Index: img.IndexPath(), Layers: img.LayerPaths(), OS: "linux"},
	})
	if err != nil {
		return "", err
	}
	for _, w := range append(p.Warnings, resp.Warnings...) {
		fmt.Fprintf(a.stderr, "WARNING: %s\n", w)
	}
	return resp.ID, nil
}

// imageFor finds the image, and pulls it as --pull says.
func (a *app) imageFor(ctx context.Context, p *runflags.Parsed, t *tracer) (*image.Image, error) {
	began := time.Now()
	store, err := a.images()
	if err != nil {
		return nil, err
	}
	name := p.Config.Image
	if strings.HasPrefix(name, image.BuiltinPrefix) {
		if err := installBuiltin(ctx, store, name); err != nil {
			return nil, err
		}
		p.Config.Env = append(p.Config.Env, hostNamespaces())
	}
	if p.Pull != "always" {
		img, err := store.Get(ctx, name, p.Platform)
		if err == nil || !errors.Is(err, errdefs.ErrNotFound) || p.Pull == "never" {
			if err == nil && t != nil {
				t.step("resolve", name+" is "+img.ID[:19], time.Since(began))
			}
			if ref, rerr := image.ParseReference(name); rerr == nil && errors.Is(err, errdefs.ErrNotFound) {
				return nil, fmt.Errorf("No such image: %s", ref.Familiar())
			}
			return img, err
		}
	}
	ref, err := image.ParseReference(name)
	if err != nil {
		return nil, err
	}
	if !p.Quiet && p.Pull != "always" {
		fmt.Fprintf(a.stderr, "Unable to find image '%s' locally\n", ref.Familiar())
	}
	return store.Pull(ctx, ref, image.PullOptions{Platform: p.Platform, Progress: a.progress(a.stderr, p.Quiet), Trace: t.of()})
}

// run is the whole of `moss run`.
func (a *app) run(ctx context.Context, flags *runflags.Flags, args []string) error {
	p, err := flags.Parse(args[0], args[1:])
	if err != nil {
		return exitError{125, err}
	}
	var t *tracer
	if p.Trace {
		t = newTracer(a.stderr)
		t.step("parse", strings.Join(args, " "), time.Since(started))
	}
	attach := lifecycle.AttachOptions{TTY: p.Config.Tty}
	if !p.Detach {
		if p.Config.AttachStdin {
			attach.Stdin = a.stdin
		}
		if p.Config.AttachStdout {
			attach.Stdout = a.stdout
		}
		if p.Config.AttachStderr && !p.Config.Tty {
			attach.Stderr = a.stderr
		}
		if p.Config.Tty && p.Config.AttachStdin && !term.IsTerminal(int(a.stdin.Fd())) {
			return exitError{125, errors.New("cannot attach stdin to a TTY-enabled container because stdin is not a terminal")}
		}
	}

	// Until the container runs, Ctrl-C calls the whole undertaking off: the pull, the create, the start.
	startCtx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	id, err := a.create(startCtx, p, t)
	if err != nil {
		if startCtx.Err() != nil && ctx.Err() == nil {
			return exitError{130, nil}
		}
		return exitError{125, engineError(err)}
	}
	eng, err := a.engine()
	if err != nil {
		return exitError{125, err}
	}
	if p.Detach {
		if _, err := eng.Start(startCtx, id, lifecycle.StartOptions{Trace: t.of()}); err != nil {
			return a.startFailed(eng, id, p.HostConfig, err)
		}
		fmt.Fprintln(a.stdout, id)
		return nil
	}
	attach.DetachKeys = p.DetachKeys
	return a.front(startCtx, stop, eng, id, attach, p.SigProxy, p.HostConfig, t)
}

// startFailed ends a run or start that did not come to run: with --rm the container goes.
func (a *app) startFailed(eng *lifecycle.Engine, id string, h *container.HostConfig, err error) error {
	if h.AutoRemove {
		_ = eng.Remove(context.Background(), id, lifecycle.RemoveOptions{Force: true, Volumes: true})
	}
	code := 125
	var failed *lifecycle.StartError
	if errors.As(err, &failed) {
		code = failed.Code
	}
	return exitError{code, engineError(err)}
}

// front starts a container with the caller's terminal and streams, and ends as the container ends.
func (a *app) front(ctx context.Context, release func(), eng *lifecycle.Engine, id string, at lifecycle.AttachOptions, proxy bool, h *container.HostConfig, t *tracer) error {
	restore := func() {}
	in, inTTY := terminal(at.Stdin)
	out, outTTY := terminal(at.Stdout)
	if at.TTY {
		size := out
		if !outTTY {
			size = in
		}
		if outTTY || inTTY {
			if w, hgt, err := term.GetSize(size); err == nil {
				at.Rows, at.Cols = uint16(hgt), uint16(w)
			}
		}
		if inTTY {
			old, err := term.MakeRaw(in)
			if err != nil {
				return exitError{125, fmt.Errorf("set the terminal to raw mode: %w", err)}
			}
			restore = func() { _ = term.Restore(in, old) }
			defer restore()
		}
	}
	s, err := eng.Start(ctx, id, lifecycle.StartOptions{Attach: &at, Trace: t.of()})
	if err != nil {
		restore()
		if ctx.Err() != nil {
			_ = eng.Kill(context.Background(), id, "")
			return a.startFailed(eng, id, h, errors.New("interrupted"))
		}
		return a.startFailed(eng, id, h, err)
	}
	release()
	defer s.Close()
	stopProxy := forwardSignals(s, proxy, at.TTY, out, outTTY)
	exit, err := s.Wait(t.of())
	stopProxy()
	restore()
	switch {
	case err != nil:
		if st, ierr := eng.Inspect(context.Background(), id, false); ierr == nil && errors.Is(err, errdefs.ErrUnavailable) {
			if h.AutoRemove {
				_ = eng.Remove(context.Background(), id, lifecycle.RemoveOptions{Force: true, Volumes: true})
			}
			fmt.Fprintf(a.stderr, "moss: %s\n", plain(err))
			return exitError{st.State.ExitCode, nil}
		}
		return exitError{125, err}
	case exit.Detached, exit.Code == 0:
		return nil
	default:
		return exitError{exit.Code, nil}
	}
}

// terminal says whether a stream is one, and its descriptor.
func terminal(stream any) (fd int, ok bool) {
	f, isFile := stream.(*os.File)
	if !isFile || f == nil {
		return -1, false
	}
	return int(f.Fd()), term.IsTerminal(int(f.Fd()))
}

// forwardSignals hands the signals that moss gets on to the container, and the terminal's new sizes. SIGCHLD, SIGPIPE
// and SIGURG are moss's own business (the last is how the Go runtime interrupts its threads).
func forwardSignals(s *lifecycle.Session, proxy, tty bool, out int, outTTY bool) (stop func()) {
	ch := make(chan os.Signal, 128)
	if proxy {
		signal.Notify(ch)
	} else {
		signal.Notify(ch, syscall.SIGWINCH)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for sig := range ch {
			switch sig := sig.(syscall.Signal); sig {
			case syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG:
			case syscall.SIGWINCH:
				if tty && outTTY {
					if w, h, err := term.GetSize(out); err == nil {
						_ = s.Resize(uint16(h), uint16(w))
					}
				}
			case syscall.SIGTTOU, syscall.SIGTTIN:
			default:
				if proxy {
					_ = s.Signal(sig)
				}
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
		<-done
	}
}

// progress is the printer for pulls: bars on a terminal, lines elsewhere, nothing when quiet.
func (a *app) progress(w io.Writer, quiet bool) image.Progress {
	if quiet {
		return nil
	}
	if fd, ok := terminal(w); ok {
		return image.TerminalProgress(w, fd)
	}
	return image.LineProgress(w)
}
