package image

import (
	"io"
	"sync"
)

// ahead reads from another reader in a goroutine of its own, a few buffers ahead of who reads from it, so that two
// stages of a stream (the network and the inflating, the inflating and the writing) work at the same time.
type ahead struct {
	full  chan piece
	free  chan []byte
	now   piece
	rest  []byte
	stop  chan struct{}
	once  sync.Once
	ended chan struct{}
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
	go func() {
		defer close(a.ended)
		for {
			var b []byte
			select {
			case b = <-a.free:
			case <-a.stop:
				return
			}
			n, err := io.ReadFull(r, b[:copyBuffer])
			if err == io.ErrUnexpectedEOF && n > 0 {
				// Either the end, or a stream that was cut: the next read tells.
				err = nil
			}
			a.full <- piece{b[:n], err}
			if err != nil {
				return
			}
		}
	}()
	return a
}

func (a *ahead) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.now.err != nil {
			return 0, a.now.err
		}
		if a.now.b != nil {
			a.free <- a.now.b
		}
		a.now = <-a.full
		a.rest = a.now.b
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close ends the goroutine and waits for it: the reader behind it may be closed then. It must have been closed, or be
// at its end, so that a read that is under way returns.
func (a *ahead) Close() error {
	a.once.Do(func() { close(a.stop) })
	<-a.ended
	return nil
}
