package main

import (
	"fmt"
	"io"
	"os"

	"github.com/moss-run/moss/image"
	"github.com/moss-run/moss/lifecycle"
)

// app is what every command works with. Stores are opened when first asked for, so that `--help` touches nothing.
type app struct {
	stdin          *os.File
	stdout, stderr io.Writer

	root    string // --root, else $MOSS_ROOT, else the default
	engine_ *lifecycle.Engine
	images_ *image.Store
}

// exitError ends the process with a code of its own. A nil err prints nothing more.
type exitError struct {
	code int
	err  error
}

func (e exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.code)
	}
	return e.err.Error()
}

func (e exitError) Unwrap() error { return e.err }

// engine opens the containers.
func (a *app) engine() (*lifecycle.Engine, error) {
	if a.engine_ == nil {
		e, err := lifecycle.Open(a.root, func() (lifecycle.Programs, error) { return programs(a.root) })
		if err != nil {
			return nil, err
		}
		a.engine_ = e
	}
	return a.engine_, nil
}

// images opens the image store.
func (a *app) images() (*image.Store, error) {
	if a.images_ == nil {
		cfg, err := image.LoadConfig()
		if err != nil {
			return nil, err
		}
		s, err := image.Open(a.root, cfg)
		if err != nil {
			return nil, err
		}
		a.images_ = s
	}
	return a.images_, nil
}
