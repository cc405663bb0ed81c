package lifecycle

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestOutputIsKeptLineByLineAndApart(t *testing.T) {
	e := newEngine(t)
	id := made(t, e, "cc", nil)
	l, err := openLog(e.dir(id).Log())
	if err != nil {
		t.Fatal(err)
	}
	out, errs := &logStream{log: l, stream: "stdout"}, &logStream{log: l, stream: "stderr"}
	long := strings.Repeat("x", maxLogLine+5)
	for _, part := range []string{"one\ntw", "o\n", long, "\n", "no newline"} {
		if n, err := out.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	errs.Write([]byte("<oops> & \xff\n"))
	out.flush()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(o LogsOptions) (string, string) {
		var a, b bytes.Buffer
		if err := e.Logs(t.Context(), "cc", o, &a, &b); err != nil {
			t.Fatal(err)
		}
		return a.String(), b.String()
	}
	if a, b := read(LogsOptions{Tail: -1}); a != "one\ntwo\n"+long+"\nno newline" || b != "<oops> & \ufffd\n" {
		t.Fatalf("%d bytes, %q", len(a), b)
	}
	if a, b := read(LogsOptions{Tail: 1}); a != "no newline" || b != "" {
		t.Fatalf("tail 1: %q %q", a, b)
	}
	if a, b := read(LogsOptions{Tail: 0}); a+b != "" {
		t.Fatalf("tail 0: %q %q", a, b)
	}
	if a, _ := read(LogsOptions{Tail: 1000}); !strings.HasPrefix(a, "one\n") {
		t.Fatalf("tail 1000: %q", a)
	}
	if a, _ := read(LogsOptions{Tail: -1, Since: time.Now().Add(time.Hour)}); a != "" {
		t.Fatalf("since the future: %q", a)
	}
	if a, _ := read(LogsOptions{Tail: 2, Timestamps: true}); len(strings.Fields(a)[0]) != len("2006-01-02T15:04:05.000000000Z") {
		t.Fatalf("timestamps: %q", a)
	}
	// Half an object, as a monitor that was killed leaves it.
	f, _ := os.OpenFile(e.dir(id).Log(), os.O_WRONLY|os.O_APPEND, 0)
	fmt.Fprint(f, `{"log":"half`)
	f.Close()
	if a, _ := read(LogsOptions{Tail: -1}); !strings.HasSuffix(a, "no newline") {
		t.Fatalf("half an object: %q", a)
	}
}

func TestTailsOfEveryLengthEndWhereTheLogDoes(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var lines []string
	for i := range 3000 {
		lines = append(lines, strings.Repeat("z", i%97)+fmt.Sprint(i)+"\n")
	}
	f.WriteString(strings.Join(lines, ""))
	for _, n := range []int{0, 1, 2, 999, 1500, 2999, 3000, 4000} {
		if err := seekTail(f, n); err != nil {
			t.Fatal(err)
		}
		got := new(bytes.Buffer)
		got.ReadFrom(f)
		if want := strings.Join(lines[len(lines)-min(n, len(lines)):], ""); got.String() != want {
			t.Errorf("tail %d: %d bytes, want %d", n, got.Len(), len(want))
		}
	}
}
