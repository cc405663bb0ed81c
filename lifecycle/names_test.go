package lifecycle

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

func newEngine(t *testing.T) *Engine {
	t.Helper()
	e, err := Open(t.TempDir(), func() (Programs, error) { return Programs{}, errors.New("nothing is executed in this test") })
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// made is a container as create makes one.
func made(t *testing.T, e *Engine, name string, change func(o *CreateOptions)) string {
	t.Helper()
	o := CreateOptions{Name: name, Config: &container.Config{Cmd: []string{"true"}, Image: "img"}, HostConfig: &container.HostConfig{NetworkMode: "bridge"}, Image: Image{ID: "sha256:abc", Name: "img"}}
	if change != nil {
		change(&o)
	}
	r, err := e.Create(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r.ID
}

func TestANameBelongsToOneContainer(t *testing.T) {
	e := newEngine(t)
	id := made(t, e, "web", nil)
	_, err := e.Create(t.Context(), CreateOptions{Name: "web", Config: &container.Config{Cmd: []string{"x"}}, HostConfig: &container.HostConfig{}})
	want := fmt.Sprintf("Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/web", id)
	if !errors.Is(err, errdefs.ErrConflict) || err.Error() != want {
		t.Fatalf("%v", err)
	}
	if left, _ := os.ReadDir(e.containers()); len(left) != 1 {
		t.Fatalf("the refused create left %v", left)
	}
	if err := e.Remove(t.Context(), "web", RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	made(t, e, "web", nil)
}

func TestOfManyCreatesOfOneNameOneWins(t *testing.T) {
	e := newEngine(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for range 20 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, err := e.Create(t.Context(), CreateOptions{Name: "one", Config: &container.Config{Cmd: []string{"x"}}, HostConfig: &container.HostConfig{}})
			if err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			} else if !errors.Is(err, errdefs.ErrConflict) {
				t.Error(err)
			}
		}()
	}
	wg.Wait()
	if ids, _ := e.ids(); won != 1 || len(ids) != 1 {
		t.Fatalf("%d creates won, %d containers are there", won, len(ids))
	}
}

func TestAClaimWhoseContainerIsGoneIsTakenOver(t *testing.T) {
	e := newEngine(t)
	id := made(t, e, "web", nil)
	if err := os.RemoveAll(string(e.dir(id))); err != nil { // and not its name
		t.Fatal(err)
	}
	made(t, e, "web", nil)
}

func TestContainersAreFoundByNameIDAndPrefix(t *testing.T) {
	e := newEngine(t)
	a, b := made(t, e, "first", nil), made(t, e, "", nil)
	for _, key := range []string{"first", "/first", a, a[:12], a[:len(a)-1]} {
		if id, err := e.find(key); err != nil || id != a {
			t.Errorf("%s: %s %v", key, id, err)
		}
	}
	for _, key := range []string{"nosuch", "", "..", "../" + a, ".hidden", strings.Repeat("f", 65)} {
		if _, err := e.find(key); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "No such container: "+key {
			t.Errorf("%q: %v", key, err)
		}
	}
	common := 0
	for common < len(a) && a[common] == b[common] {
		common++
	}
	if common > 0 {
		if _, err := e.find(a[:common]); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("a prefix of two: %v", err)
		}
	}
}

func TestMadeUpNamesFollowDockersRule(t *testing.T) {
	e := newEngine(t)
	for range 30 {
		id := made(t, e, "", nil)
		rec, err := e.dir(id).ReadRecord()
		if err != nil || !nameRule.MatchString(rec.Name) || !strings.Contains(rec.Name, "_") || rec.Name == "boring_wozniak" {
			t.Fatalf("%q %v", rec.Name, err)
		}
		if rec.Config.Hostname != id[:12] || !strings.ContainsAny(id[:12], "abcdef") {
			t.Fatalf("hostname %q of %s", rec.Config.Hostname, id)
		}
	}
}

func TestARunningRecordIsBelievedOnlyWithItsMonitor(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now().Add(-time.Minute)
	for name, c := range map[string]struct {
		monitor Process
		want    container.ContainerState
	}{
		"alive":             {self, container.StateRunning},
		"another start":     {Process{self.Pid, self.Start + 1, self.Boot, self.Host}, container.StateExited},
		"another boot":      {Process{self.Pid, self.Start, "other", self.Host}, container.StateExited},
		"no such process":   {Process{1 << 30, 1, self.Boot, self.Host}, container.StateExited},
		"on another host":   {Process{self.Pid, self.Start, "other", "elsewhere"}, container.StateRunning},
		"of no host at all": {Process{}, container.StateExited},
	} {
		s := &State{Status: container.StateRunning, Pid: 7, StartedAt: started, Monitor: c.monitor}
		got := s.believed()
		if got.Status != c.want {
			t.Errorf("%s: %s", name, got.Status)
		}
		if got.Status == container.StateExited && (got.ExitCode != 137 || got.Error == "" || got.FinishedAt.Before(started)) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}
