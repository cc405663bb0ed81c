package main

import (
	"errors"
	"fmt"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"
)

// exactly is docker's complaint about a wrong number of arguments.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return argumentError(cmd, fmt.Sprintf("%d argument", n), n)
	}
}

// each does the same for every name: what fails is told, and does not keep the others from being done.
func (a *app) each(names []string, f func(name string) error) error {
	failed := false
	for _, name := range names {
		if err := f(name); err != nil {
			fmt.Fprintln(a.stderr, plain(engineError(err)))
			failed = true
		}
	}
	if failed {
		return exitError{1, nil}
	}
	return nil
}

// parallel does the same for every name, up to 50 at once, and prints the name of each that is done, in their order.
func (a *app) parallel(names []string, f func(name string) error) error {
	errs := make([]error, len(names))
	room := make(chan struct{}, 50)
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Add(1)
		room <- struct{}{}
		go func() {
			defer wg.Done()
			errs[i] = f(name)
			<-room
		}()
	}
	wg.Wait()
	i := -1
	return a.each(names, func(name string) error {
		if i++; errs[i] == nil {
			fmt.Fprintln(a.stdout, name)
		}
		return errs[i]
	})
}

func isNotFound(err error) bool { return errors.Is(err, errdefs.ErrNotFound) }
