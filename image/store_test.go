package image

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	imagetypes "github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// files lists the layers, indexes and blobs of a store.
func files(t *testing.T, s *Store) []string {
	t.Helper()
	var all []string
	for _, p := range []string{"layers/*", "images/*", "blobs/sha256/*", "tmp/*"} {
		m, err := filepath.Glob(s.path(p))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m...)
	}
	return all
}

func untagged(r []imagetypes.DeleteResponse) (n, deleted int) {
	for _, d := range r {
		if d.Untagged != "" {
			n++
		} else {
			deleted++
		}
	}
	return n, deleted
}

func TestRemoveKeepsWhatOthersNeed(t *testing.T) {
	h := newHub(t)
	shared := noise(t, 1000)
	h.push("a", "latest", []layer{shared}, nil)
	h.push("b", "latest", []layer{shared, noise(t, 1000)}, nil)
	s := newStore(t)
	for _, r := range []string{"a", "b"} {
		if _, err := s.Pull(t.Context(), mustRef(t, h.host+"/"+r), PullOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Tag(t.Context(), h.host+"/b", "mine:1"); err != nil {
		t.Fatal(err)
	}
	done, err := s.Remove(t.Context(), h.host+"/b", RemoveOptions{})
	if n, d := untagged(done); err != nil || n != 1 || d != 0 {
		t.Fatalf("one of two names: %+v %v", done, err)
	}
	if _, err := s.Get(t.Context(), "mine:1", ""); err != nil {
		t.Fatal(err)
	}
	done, err = s.Remove(t.Context(), "mine:1", RemoveOptions{})
	if n, d := untagged(done); err != nil || n != 1 || d != 2 { // the image, and the layer that is its own
		t.Fatalf("the last name: %+v %v", done, err)
	}
	img, err := s.Get(t.Context(), h.host+"/a", "")
	if err != nil || !img.Complete() {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), img.ID[7:19], RemoveOptions{}); err != nil {
		t.Fatal(err)
	}
	if left := files(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	if _, err := s.Remove(t.Context(), "a", RemoveOptions{}); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "No such image: a" {
		t.Error(err)
	}
}

func TestRemoveRefusesWhatDockerRefuses(t *testing.T) {
	h := newHub(t)
	h.push("a", "latest", []layer{noise(t, 10)}, nil)
	s := newStore(t)
	img, err := s.Pull(t.Context(), mustRef(t, h.host+"/a"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	short := strings.TrimPrefix(img.ID, "sha256:")[:12]
	by := func(running bool) func(string) (string, bool, bool) {
		return func(id string) (string, bool, bool) { return strings.Repeat("c", 64), running, id == img.ID }
	}
	name := h.host + "/a"
	for _, c := range []struct {
		name string
		o    RemoveOptions
		want string
	}{
		{name, RemoveOptions{InUse: by(true), Force: true}, `unable to remove repository reference "` + name + `" (cannot be forced) - container cccccccccccc is using its referenced image ` + short},
		{name, RemoveOptions{InUse: by(false)}, `unable to remove repository reference "` + name + `" (must force) - container cccccccccccc is using its referenced image ` + short},
		{short, RemoveOptions{InUse: by(true)}, "unable to delete " + short + " (cannot be forced) - image is being used by running container cccccccccccc"},
		{short, RemoveOptions{InUse: by(false)}, "unable to delete " + short + " (must be forced) - image is being used by stopped container cccccccccccc"},
	} {
		if _, err := s.Remove(t.Context(), c.name, c.o); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := s.Tag(t.Context(), name, "other"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Remove(t.Context(), short, RemoveOptions{}); !errors.Is(err, errdefs.ErrConflict) || !strings.Contains(err.Error(), "image is referenced in multiple repositories") {
		t.Error(err)
	}
	// Forced, a stopped container's image loses its names, and its files stay.
	if _, err := s.Remove(t.Context(), short, RemoveOptions{InUse: by(false), Force: true}); err != nil {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), short, "")
	if err != nil || len(got.RepoTags) != 0 || !got.Complete() {
		t.Errorf("%+v: %v", got, err)
	}
}

func TestListAndInspect(t *testing.T) {
	h := newHub(t)
	h.push("a", "v1", []layer{noise(t, 1000)}, func(_ *ocispec.Manifest, c *dockerspec.DockerOCIImage) {
		c.Config.Labels = map[string]string{"k": "v"}
		c.Config.ExposedPorts = map[string]struct{}{"80/tcp": {}, "garbage/x": {}}
		c.Config.Healthcheck = &dockerspec.HealthcheckConfig{Test: []string{"CMD", "true"}}
	})
	s := newStore(t)
	img, err := s.Pull(t.Context(), mustRef(t, h.host+"/a:v1"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Tag(t.Context(), h.host+"/a:v1", "second"); err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	if l := list[0]; l.ID != img.ID || !slices.Equal(l.RepoTags, []string{h.host + "/a:v1", "second:latest"}) || l.Labels["k"] != "v" || l.Size <= 0 {
		t.Errorf("%+v", l)
	}
	r, err := s.Inspect(t.Context(), img.ID, "")
	if err != nil || r.ID != img.ID || len(r.RootFS.Layers) != 1 || r.Os != "linux" || r.Config.Healthcheck == nil {
		t.Errorf("%+v %v", r, err)
	}
	if c := img.ContainerConfig(); len(c.ExposedPorts) != 1 || c.Healthcheck == nil {
		t.Errorf("%+v", c)
	}
	if _, err := s.Get(t.Context(), h.host+"/a:v1", "linux/s390x"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("another platform: %v", err)
	}
}

func TestANewImageUnderTheSameTagLeavesTheOldOneNameless(t *testing.T) {
	h := newHub(t)
	s := newStore(t)
	ids := map[string]bool{}
	for range 2 {
		h.push("a", "latest", []layer{noise(t, 10)}, nil)
		img, err := s.Pull(t.Context(), mustRef(t, h.host+"/a"), PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ids[img.ID] = true
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || len(ids) != 2 {
		t.Fatalf("%d images: %v", len(list), err)
	}
	if n := len(list[0].RepoTags) + len(list[1].RepoTags); n != 1 {
		t.Errorf("%d names", n)
	}
}

func TestBuiltinImages(t *testing.T) {
	s := newStore(t)
	cfg := dockerspec.DockerOCIImageConfig{}
	cfg.Cmd = []string{"/hello"}
	first, err := s.InstallBuiltin(t.Context(), "builtin:hello", tarOf(t, map[string]string{"hello": "1"}), cfg)
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.InstallBuiltin(t.Context(), "builtin:hello", tarOf(t, map[string]string{"hello": "1"}), cfg)
	if err != nil || again.ID != first.ID {
		t.Fatal(err)
	}
	next, err := s.InstallBuiltin(t.Context(), "builtin:hello", tarOf(t, map[string]string{"hello": "2"}), cfg)
	if err != nil || next.ID == first.ID {
		t.Fatal(err)
	}
	got, err := s.Get(t.Context(), "builtin:hello", "")
	if err != nil || got.ID != next.ID || readFile(t, got, "/hello") != "2" || !slices.Equal(got.RepoTags, []string{"builtin:hello"}) {
		t.Errorf("%+v %v", got, err)
	}
}

func TestADamagedStoreIsAnError(t *testing.T) {
	h := newHub(t)
	h.push("a", "latest", []layer{noise(t, 10)}, nil)
	s := newStore(t)
	img, err := s.Pull(t.Context(), mustRef(t, h.host+"/a"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.blob(img.Descriptor.Digest), []byte("{}"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), h.host+"/a", ""); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	// A pull mends it.
	if _, err := s.Pull(t.Context(), mustRef(t, h.host+"/a"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), h.host+"/a", ""); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(s.path("index.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.List(); err == nil || !strings.Contains(err.Error(), "index.json is damaged") {
		t.Error(err)
	}
}

func TestConfigIsRead(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	if c, err := LoadConfig(); err != nil || len(c.Registries) != 0 {
		t.Errorf("no file: %+v %v", c, err)
	}
	write := func(text string) {
		if err := os.MkdirAll(filepath.Join(dir, "moss"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "moss/config.toml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("timeout = \"5s\"\n[registries.\"docker.io\"]\nmirrors = [\"m.example:5000\"]\n[registries.\"m.example:5000\"]\ninsecure = true\n")
	c, err := LoadConfig()
	if err != nil {
		t.Fatal(err)
	}
	if c.timeout().Seconds() != 5 || !slices.Equal(c.sources("docker.io"), []string{"m.example:5000", "docker.io"}) || !c.insecure("m.example:5000") || c.insecure("docker.io") || !c.insecure("127.0.0.1:5000") || !c.insecure("[::1]:5000") || !c.insecure("localhost") {
		t.Errorf("%+v", c)
	}
	for _, bad := range []string{"timeout = 5", "mirror = 1", "[registries", "[registries.x]\nmirors = []\n"} {
		write(bad)
		if _, err := LoadConfig(); err == nil || !strings.Contains(err.Error(), "config.toml") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add("application/vnd.oci.image.manifest.v1+json", []byte(`{"schemaVersion":2,"config":{"digest":"sha256:aa","size":1},"layers":[{}]}`))
	f.Add("", []byte(`{"schemaVersion":2,"manifests":[{"platform":{"os":"linux"}}]}`))
	f.Fuzz(func(t *testing.T, mediaType string, raw []byte) {
		switch kindOf(mediaType, raw) {
		case kindIndex:
			var ix ocispec.Index
			if json.Unmarshal(raw, &ix) == nil {
				if d, ok := choose(ix.Manifests, here()); ok && d.Platform == nil {
					t.Error("a manifest for no platform was chosen")
				}
			}
		case kindImage:
			var m ocispec.Manifest
			if json.Unmarshal(raw, &m) == nil && checkManifest(&m) == nil {
				for _, d := range append(m.Layers, m.Config) {
					if d.Digest.Validate() != nil || d.Size < 0 {
						t.Errorf("accepted: %+v", d)
					}
				}
			}
		}
	})
}
