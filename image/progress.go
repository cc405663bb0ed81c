package image

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/docker/go-units"
	"golang.org/x/sys/unix"
)

// Progress hears how a pull goes on. Its methods are called concurrently.
type Progress interface {
	Message(text string)                           // a line of its own
	Layer(id, status string, current, total int64) // a layer, by the first 12 digits of its digest
	Done()                                         // no layer is under way any more
}

type silent struct{}

func (silent) Message(string)                     {}
func (silent) Layer(string, string, int64, int64) {}
func (silent) Done()                              {}

// LineProgress prints a line for each change, without the bytes, as docker does where there is no terminal.
func LineProgress(w io.Writer) Progress { return &lines{w: w, last: map[string]string{}} }

type lines struct {
	mu   sync.Mutex // guards all
	w    io.Writer
	last map[string]string
}

func (l *lines) Message(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintln(l.w, text)
}

func (l *lines) Layer(id, status string, _, _ int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if status == "Downloading" || l.last[id] == status {
		return
	}
	l.last[id] = status
	fmt.Fprintf(l.w, "%s: %s\n", id, status)
}

func (l *lines) Done() {}

// TerminalProgress rewrites one line for each layer, with bars, on the terminal fd.
func TerminalProgress(w io.Writer, fd int) Progress {
	width := 80
	if ws, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ); err == nil && ws.Col > 0 {
		width = int(ws.Col)
	}
	return &bars{w: w, width: width}
}

type bars struct {
	mu    sync.Mutex // guards all below
	w     io.Writer
	width int
	ids   []string
	text  []string
}

func (b *bars) Message(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintln(b.w, text)
}

func (b *bars) Layer(id, status string, current, total int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.ids, id)
	if i < 0 {
		i = len(b.ids)
		b.ids = append(b.ids, id)
		b.text = append(b.text, "")
		fmt.Fprintln(b.w)
	}
	text := id + ": " + status
	if status == "Downloading" && total > 0 {
		size := fmt.Sprintf("%8s/%s", units.HumanSizeWithPrecision(float64(current), 3), units.HumanSizeWithPrecision(float64(total), 3))
		if b.width > 110 {
			done := int(min(50*current/total, 50))
			text += " [" + strings.Repeat("=", done) + ">" + strings.Repeat(" ", 50-done) + "] " + size
		} else {
			text += " " + size
		}
	}
	text = text[:min(len(text), b.width-1)]
	if b.text[i] == text {
		return
	}
	b.text[i] = text
	up := len(b.ids) - i
	fmt.Fprintf(b.w, "\x1b[%dA\x1b[2K\r%s\r\x1b[%dB", up, text, up)
}

func (b *bars) Done() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ids, b.text = nil, nil
}
