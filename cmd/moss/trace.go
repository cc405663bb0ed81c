package main

import (
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/moss-run/moss/lifecycle"
)

// tracer prints each step of a run as it ends, for --trace: when (since the command began), what, and how long it took.
type tracer struct {
	mu    sync.Mutex // guards w: layers are pulled side by side
	w     io.Writer
	began time.Time
}

func newTracer(w io.Writer) *tracer { return &tracer{w: w, began: time.Now()} }

// step is a lifecycle.TraceFunc.
func (t *tracer) step(step, detail string, took time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, "%9.1f ms  %-15s %8.1f ms  %s\n", ms(time.Since(t.began)), step, ms(took), detail)
}

// of is t's step function, nil without a tracer.
func (t *tracer) of() lifecycle.TraceFunc {
	if t == nil {
		return nil
	}
	return t.step
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
