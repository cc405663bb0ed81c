package image

import (
	"io"
	"sync"
)

// ahead reads from another reader in a goroutine of its own, a few buffers ahead of who reads from it, so that two
// stages of a stream (the network and the inflating, the inflating and the writing) work at the same time.
type ahead struct {
	full  chan piece // closed when the goroutine ends
	free  chan []byte
	now   piece
	rest  []byte
	stop  chan struct{}
	once  sync.Once
	ended chan struct{}
	err   error // how the reader behind it ended by itself; to be looked at after Close
}

type piece struct {
	b   []byte
	err error
}

func readAhead(r io.Reader) *ahead {
	const buffers = 4
	a := &ahead{full: make(chan piece, buffers), free: make(chan []byte, buffers), stop: make(chan struct{}), ended: make(chan struct{})}
	for range buffers {
		a.free <- make([]byte, copyBuffer)
	}
	go a.fill(r)
	return a
}

func (a *ahead) fill(r io.Reader) {
	defer close(a.ended)
	defer close(a.full)
	for {
		var b []byte
		select {
		case <-a.stop:
			return
		case b = <-a.free:
		}
		n, err := 0, error(nil)
		for n < len(b) && err == nil {
			var m int
			m, err = r.Read(b[n:])
			n += m
		}
		a.full <- piece{b[:n], err} // never waits: there is room for every buffer
		if err != nil {
			select {
			case <-a.stop: // the reader was closed under us
			default:
				a.err = err
			}
			return
		}
	}
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.b != nil {
			a.free <- a.now.b[:copyBuffer]
		}
		var ok bool
		if a.now, ok = <-a.full; !ok {
			a.now.err = io.ErrClosedPipe
		}
		a.rest = a.now.b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Stop makes the goroutine end as soon as its read returns. Close the reader behind it then, if that may take long.
func (a *ahead) Stop() { a.once.Do(func() { close(a.stop) }) }

// Close stops the goroutine and waits for it.
func (a *ahead) Close() error {
	a.Stop()
	<-a.ended
	return nil
}
