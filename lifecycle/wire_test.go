package lifecycle

import (
	"bytes"
	"io"
	"net"
	"testing"
)

func TestStreamsTravelInFramesOfBoundedSize(t *testing.T) {
	a, b := net.Pipe()
	from, to := NewConn(a), NewConn(b)
	sent := bytes.Repeat([]byte("0123456789"), 50_000)
	go func() {
		_, _ = streamWriter{from, frameStdout}.Write(sent)
		from.Close()
	}()
	var got []byte
	for {
		kind, p, err := to.receive()
		if err == io.EOF {
			break
		}
		if err != nil || kind != frameStdout || len(p) > 64<<10 {
			t.Fatal(kind, len(p), err)
		}
		got = append(got, p...)
	}
	if !bytes.Equal(got, sent) {
		t.Fatalf("%d bytes of %d", len(got), len(sent))
	}
}

func FuzzReceive(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 2, '{', '}'})
	f.Add([]byte{19, 0xff, 0xff, 0xff, 0xff, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		a, c := net.Pipe()
		defer c.Close()
		go func() {
			_, _ = a.Write(b)
			a.Close()
		}()
		conn := NewConn(c)
		for {
			if _, p, err := conn.receive(); err != nil {
				return
			} else if len(p) > maxFrame {
				t.Fatal("a frame beyond the bound")
			}
		}
	})
}
