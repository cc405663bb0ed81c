package image

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func TestCredentialsAreDockers(t *testing.T) {
	h := newHub(t)
	h.push("x", "latest", []layer{noise(t, 10)}, nil)
	h.spoiled(func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if u, p, _ := r.BasicAuth(); u == "me" && p == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	dir := t.TempDir()
	t.Setenv("DOCKER_CONFIG", dir)
	for password, works := range map[string]bool{"secret": true, "wrong": false, "": false} {
		text := "{}"
		if password != "" {
			text = fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, h.host, base64.StdEncoding.EncodeToString([]byte("me:"+password)))
		}
		if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := newStore(t).Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{})
		if works && err != nil {
			t.Errorf("%q: %v", password, err)
		}
		if !works && (!errors.Is(err, errdefs.ErrPermissionDenied) || !strings.Contains(err.Error(), "docker's config.json") || strings.Contains(err.Error(), "wrong")) {
			t.Errorf("%q: %v", password, err)
		}
	}
}

func TestAFullDiskIsNamedAndLeftClean(t *testing.T) {
	h := newHub(t)
	h.push("x", "latest", []layer{noise(t, 8<<20)}, nil)
	s := newStore(t)
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", s.root, "tmpfs", 0, "size=3m"); err != nil {
		t.Skipf("a small file system cannot be mounted: %v", err)
	}
	defer unix.Unmount(s.root, unix.MNT_DETACH)
	_, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{})
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "free some space") {
		t.Error(err)
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
