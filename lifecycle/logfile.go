package lifecycle

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"sync"
	"time"
)

// The log is docker's json-file: one JSON object a line, {"log":"text\n","stream":"stdout","time":"RFC 3339"}. A line of
// output longer than maxLogLine becomes several objects, all but the last without a newline at the end of their text.
const maxLogLine = 16 << 10

type logEntry struct {
	Log    string    `json:"log"`
	Stream string    `json:"stream"`
	Time   time.Time `json:"time"`
}

// logFile writes a container's log. A log that cannot be written (the disk is full) is no reason to stop the container:
// the first error is kept and told when the log is closed.
type logFile struct {
	mu  sync.Mutex // guards all below
	f   *os.File
	enc *json.Encoder
	err error
}

func openLog(path string) (*logFile, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	// Each object is handed to the file in one write, so that a reader never sees an object of two writers' halves.
	l := &logFile{f: f, enc: json.NewEncoder(f)}
	l.enc.SetEscapeHTML(false)
	return l, nil
}

func (l *logFile) write(stream string, text []byte) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.enc.Encode(logEntry{Log: string(text), Stream: stream, Time: time.Now().UTC()}); err != nil && l.err == nil {
		l.err = err
	}
}

// Close tells the first error of any write.
func (l *logFile) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.f.Close(); l.err == nil {
		l.err = err
	}
	return l.err
}

// logStream cuts one stream into lines for the log.
type logStream struct {
	log    *logFile
	stream string
	buf    []byte
}

func (s *logStream) Write(b []byte) (int, error) {
	n := len(b)
	for len(b) > 0 {
		i := bytes.IndexByte(b, '\n')
		take := len(b)
		if i >= 0 {
			take = i + 1
		}
		take = min(take, maxLogLine-len(s.buf))
		s.buf = append(s.buf, b[:take]...)
		b = b[take:]
		if s.buf[len(s.buf)-1] == '\n' || len(s.buf) == maxLogLine {
			s.flush()
		}
	}
	return n, nil
}

func (s *logStream) flush() {
	if len(s.buf) > 0 {
		s.log.write(s.stream, s.buf)
		s.buf = s.buf[:0]
	}
}

// seekTail moves f to the start of its last n lines.
func seekTail(f *os.File, n int) error {
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return err
	}
	const block = 64 << 10
	buf := make([]byte, block)
	lines := 0
	for pos := end; pos > 0; {
		size := min(int64(block), pos)
		pos -= size
		if _, err := f.ReadAt(buf[:size], pos); err != nil {
			return err
		}
		for i := size - 1; i >= 0; i-- {
			if buf[i] != '\n' || pos+i == end-1 {
				continue
			}
			if lines++; lines >= n {
				_, err := f.Seek(pos+i+1, io.SeekStart)
				return err
			}
		}
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}
