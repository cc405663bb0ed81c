package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func options(t *testing.T) Options {
	return Options{
		Root:    filepath.Join(t.TempDir(), "not", "yet", "there"),
		RunDir:  func() (string, error) { return os.Getenv("XDG_RUNTIME_DIR"), nil },
		Overlay: func(context.Context, string) error { return nil },
	}
}

// needsNamespaces skips where the overlay is not even tried.
func needsNamespaces(t *testing.T) {
	if err := cloneUserNamespace(); err != nil {
		t.Skipf("no user namespace: %v", err)
	}
	if c := checkFuse(context.Background(), Options{}); c.Verdict != OK {
		t.Skip(c.Found)
	}
}

func find(t *testing.T, r Report, name string) Check {
	t.Helper()
	i := slices.IndexFunc(r.Checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %s in %+v", name, r)
	}
	return r.Checks[i]
}

func TestEveryCheckSaysWhatItFoundAndHowToMendIt(t *testing.T) {
	r := Run(context.Background(), options(t))
	if len(r.Checks) != len(checks) {
		t.Fatalf("%d checks, want %d", len(r.Checks), len(checks))
	}
	ok := true
	for i, c := range r.Checks {
		t.Logf("%+v", c)
		if c.Name != checks[i].name || c.Found == "" {
			t.Errorf("%+v", c)
		}
		if c.Verdict != OK && (c.Cost == "" || c.Remedy == "") {
			t.Errorf("%s: verdict %s without cost or remedy", c.Name, c.Verdict)
		}
		ok = ok && c.Verdict != Fail
	}
	if r.OK != ok {
		t.Errorf("the report says %v", r.OK)
	}
}

func TestACheckThatHangsIsNotWaitedFor(t *testing.T) {
	needsNamespaces(t)
	o := options(t)
	block := make(chan struct{})
	defer close(block)
	o.Overlay = func(context.Context, string) error { <-block; return nil }
	o.Limit = 300 * time.Millisecond
	began := time.Now()
	r := Run(context.Background(), o)
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("took %s", took)
	}
	if c := find(t, r, "overlay"); c.Verdict != Fail || !strings.Contains(c.Found, "no answer") || r.OK {
		t.Errorf("%+v, report ok %v", c, r.OK)
	}
	if c := find(t, r, "space"); c.Verdict == "" || strings.Contains(c.Found, "no answer") {
		t.Errorf("a check that answered was lost: %+v", c)
	}
}

func TestAnOverlayThatDoesNotMountFailsTheReport(t *testing.T) {
	needsNamespaces(t)
	o := options(t)
	o.Overlay = func(context.Context, string) error { return errors.New("operation not permitted") }
	r := Run(context.Background(), o)
	if c := find(t, r, "overlay"); c.Verdict != Fail || r.OK || !strings.Contains(c.Found, "operation not permitted") {
		t.Errorf("%+v", c)
	}
}

func TestAStoreThatCannotBeWrittenFails(t *testing.T) {
	o := options(t)
	o.Root = "/proc/moss"
	if c := checkStore(context.Background(), o); c.Verdict != Fail || c.Remedy == "" {
		t.Errorf("%+v", c)
	}
}

func TestNothingIsLeftBelowTheStore(t *testing.T) {
	o := options(t)
	o.Root = t.TempDir()
	Run(context.Background(), o)
	left, err := os.ReadDir(o.Root)
	if err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestTheRuntimeFolderIsJudged(t *testing.T) {
	dir := t.TempDir()
	own := filepath.Join(dir, "run")
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	at := func(d string, err error) Options {
		return Options{RunDir: func() (string, error) { return d, err }}
	}
	for name, tc := range map[string]struct {
		env  string
		mode os.FileMode
		o    Options
		want Verdict
	}{
		"as it should be":      {own, 0o700, at(own+"/moss", nil), OK},
		"not set":              {"", 0o700, at("/tmp/moss-1", nil), Warn},
		"set and not usable":   {"/nonexistent", 0o700, at("/tmp/moss-1", nil), Warn},
		"open to others":       {own, 0o755, at(own+"/moss", nil), Warn},
		"none at all":          {"", 0o700, at("", errors.New("no folder")), Fail},
		"too long for sockets": {own, 0o700, at(own+strings.Repeat("/long", 20), nil), Fail},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("XDG_RUNTIME_DIR", tc.env)
			if err := os.Chmod(own, tc.mode); err != nil {
				t.Fatal(err)
			}
			if c := checkRuntimeFolder(context.Background(), tc.o); c.Verdict != tc.want {
				t.Errorf("%+v, want %s", c, tc.want)
			}
		})
	}
}

func TestADeviceThatIsMissingOrForbiddenIsToldApart(t *testing.T) {
	if c := device("/dev/null", "null", "nothing"); c.Verdict != OK {
		t.Errorf("%+v", c)
	}
	if c := device(filepath.Join(t.TempDir(), "fuse"), "fuse", "all"); c.Verdict != Fail || !strings.Contains(c.Remedy, "fuse") || c.Cost != "all" {
		t.Errorf("%+v", c)
	}
	if os.Geteuid() == 0 {
		t.Skip("root may open everything")
	}
	shut := filepath.Join(t.TempDir(), "fuse")
	if err := os.WriteFile(shut, nil, 0); err != nil {
		t.Fatal(err)
	}
	if c := device(shut, "fuse", "all"); c.Verdict != Fail || !strings.Contains(c.Found, "permission denied") {
		t.Errorf("%+v", c)
	}
}

func TestPathsAreQuotedForTheShell(t *testing.T) {
	for in, want := range map[string]string{"/home/me": "/home/me", "/home/a b": "'/home/a b'", "/it's": `'/it'\''s'`, "/$(x)": "'/$(x)'", "": "''"} {
		if got := quote(in); got != want {
			t.Errorf("%q: %s, want %s", in, got, want)
		}
	}
}

func TestTheKeysOfTheReportAreStable(t *testing.T) {
	b, err := json.Marshal(Report{OK: true, Checks: []Check{{"fuse", Warn, "f", "c", "r"}}})
	if want := `{"ok":true,"checks":[{"name":"fuse","verdict":"warn","found":"f","cost":"c","remedy":"r"}]}`; err != nil || string(b) != want {
		t.Errorf("%s, %v", b, err)
	}
}
