package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/moss-run/moss/image/erofs"
)

// readFile reads a file of an image's tree.
func readFile(t *testing.T, img *Image, path string) string {
	t.Helper()
	tree, err := erofs.Open(img.IndexPath(), img.LayerPaths())
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	n, errno := tree.Resolve(path)
	if errno != 0 {
		t.Fatalf("%s: %v", path, errno)
	}
	b := make([]byte, 1<<20)
	k, errno := tree.Read(n, b, 0)
	if errno != 0 {
		t.Fatalf("%s: %v", path, errno)
	}
	return string(b[:k])
}

func TestPullOfEveryCompression(t *testing.T) {
	h := newHub(t)
	h.push("x", "latest", []layer{
		gzipped(tarOf(t, map[string]string{"a": "gzip"})), zstded(tarOf(t, map[string]string{"b": "zstd"})),
		uncompressed(tarOf(t, map[string]string{"c": "plain"})), gzipped(tarOf(t, map[string]string{".wh.a": ""})),
	}, nil)
	s := newStore(t)
	var out bytes.Buffer
	img, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{Progress: LineProgress(&out)})
	if err != nil {
		t.Fatal(err)
	}
	if readFile(t, img, "/b") != "zstd" || readFile(t, img, "/c") != "plain" {
		t.Error("a file is not what was pushed")
	}
	for _, want := range []string{"latest: Pulling from x\n", ": Pulling fs layer\n", ": Download complete\n", ": Pull complete\n", "Digest: sha256:", "Status: Downloaded newer image for " + h.host + "/x:latest\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the progress lacks %q:\n%s", want, out.String())
		}
	}
	if !slices.Equal(img.RepoTags, []string{h.host + "/x:latest"}) || len(img.RepoDigests) != 1 || !strings.HasPrefix(img.RepoDigests[0], h.host+"/x@sha256:") {
		t.Errorf("names: %q %q", img.RepoTags, img.RepoDigests)
	}
	if c := img.ContainerConfig(); !slices.Equal(c.Cmd, []string{"/bin/sh"}) || !slices.Equal(c.Env, []string{"A=1"}) {
		t.Errorf("configuration: %+v", c)
	}

	h.spoiled(nil)
	out.Reset()
	if _, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{Progress: LineProgress(&out)}); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "Status: Image is up to date for") || strings.Count(out.String(), "Already exists") != 4 {
		t.Errorf("a second pull said:\n%s", out.String())
	}
	if n := h.fetched("/blobs/"); n != 1 { // the configuration
		t.Errorf("a second pull fetched %d blobs", n)
	}
}

func TestOddImagesArePulled(t *testing.T) {
	h := newHub(t)
	one := gzipped(tarOf(t, map[string]string{"f": "one"}))
	var many []layer
	for i := range 120 {
		many = append(many, uncompressed(tarOf(t, map[string]string{"f": fmt.Sprint(i), fmt.Sprint("g", i): ""})))
	}
	for name, layers := range map[string][]layer{"zero": nil, "twice": {one, one}, "many": many} {
		t.Run(name, func(t *testing.T) {
			h.push(name, "latest", layers, nil)
			s := newStore(t)
			img, err := s.Pull(t.Context(), mustRef(t, h.host+"/"+name), PullOptions{})
			if err != nil {
				t.Fatal(err)
			}
			if len(img.LayerPaths()) != len(layers) || !img.Complete() {
				t.Errorf("%d layers, complete: %v", len(img.LayerPaths()), img.Complete())
			}
			switch name {
			case "many":
				if got := readFile(t, img, "f"); got != "119" {
					t.Errorf("f is %q", got)
				}
			case "twice":
				if got := readFile(t, img, "f"); got != "one" {
					t.Errorf("f is %q", got)
				}
			}
		})
	}
	t.Run("an empty configuration", func(t *testing.T) {
		h.push("empty", "latest", nil, func(m *ocispec.Manifest, _ *dockerspec.DockerOCIImage) {
			m.Config = h.blob("empty", []byte("{}"))
			m.Config.MediaType = ocispec.MediaTypeImageConfig
		})
		s := newStore(t)
		if _, err := s.Pull(t.Context(), mustRef(t, h.host+"/empty"), PullOptions{}); err != nil {
			t.Error(err)
		}
	})
}

func TestTheManifestForThePlatformIsChosen(t *testing.T) {
	h := newHub(t)
	var ix ocispec.Index
	ix.SchemaVersion = 2
	for _, p := range []ocispec.Platform{{OS: "unknown", Architecture: "unknown"}, {OS: "linux", Architecture: "arm", Variant: "v6"}, {OS: "linux", Architecture: "arm", Variant: "v7"}, {OS: "linux", Architecture: "amd64"}} {
		d, _ := h.push("x", "", []layer{uncompressed(tarOf(t, map[string]string{"arch": p.Architecture + p.Variant}))}, func(_ *ocispec.Manifest, c *dockerspec.DockerOCIImage) {
			c.Platform = p
		})
		d.Platform = &p
		ix.Manifests = append(ix.Manifests, d)
	}
	h.manifest("x", "latest", ocispec.MediaTypeImageIndex, ix)
	s := newStore(t)
	for platform, want := range map[string]string{"linux/arm/v7": "armv7", "linux/amd64": "amd64", "amd64": "amd64", "linux/arm/v6": "armv6"} {
		img, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{Platform: platform})
		if err != nil {
			t.Fatal(err)
		}
		if got := readFile(t, img, "arch"); got != want {
			t.Errorf("%s: got %s", platform, got)
		}
	}
	_, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{Platform: "linux/riscv64"})
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "no matching manifest for linux/riscv64 in the manifest list entries") {
		t.Error(err)
	}
}

func TestAReferenceByDigest(t *testing.T) {
	h := newHub(t)
	d, _ := h.push("x", "latest", []layer{noise(t, 100)}, nil)
	s := newStore(t)
	name := h.host + "/x:old@" + d.Digest.String()
	if _, err := s.Pull(t.Context(), mustRef(t, name), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	img, err := s.Get(t.Context(), name, "")
	if err != nil {
		t.Fatal(err)
	}
	if len(img.RepoTags) != 0 || len(img.RepoDigests) != 1 {
		t.Errorf("names: %q %q", img.RepoTags, img.RepoDigests)
	}
}

// manifestOf serves body for the manifest of latest.
func manifestOf(mediaType, body string) func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
		if !strings.HasSuffix(r.URL.Path, "/manifests/latest") {
			return false
		}
		w.Header().Set("Content-Type", mediaType)
		_, _ = w.Write([]byte(body))
		return true
	}
}

func onBlob(d digest.Digest, f func(w http.ResponseWriter, r *http.Request, next http.Handler)) func(http.ResponseWriter, *http.Request, http.Handler) bool {
	return func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		if !strings.Contains(r.URL.Path, d.String()) {
			return false
		}
		f(w, r, next)
		return true
	}
}

func TestWhatIsBadIsRefusedAndNothingIsLeft(t *testing.T) {
	good := noise(t, 3<<20)
	other := noise(t, 3<<20)
	type faults = func(http.ResponseWriter, *http.Request, http.Handler) bool
	status := func(code int) func(w http.ResponseWriter, r *http.Request, next http.Handler) bool {
		return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) bool { w.WriteHeader(code); return true }
	}
	for name, c := range map[string]struct {
		edit   func(h *hub, m *ocispec.Manifest, c *dockerspec.DockerOCIImage)
		faults func(m *ocispec.Manifest) faults
		class  error
		want   string
	}{
		"a blob that is another": {faults: func(m *ocispec.Manifest) faults {
			return onBlob(m.Layers[0].Digest, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				_, _ = w.Write(bytes.Repeat([]byte{7}, len(good.packed)))
			})
		}, class: errdefs.ErrDataLoss, want: "digest mismatch"},
		"a blob that does not end": {faults: func(m *ocispec.Manifest) faults {
			return onBlob(m.Layers[0].Digest, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
				for {
					if _, err := w.Write(good.packed); err != nil {
						return
					}
				}
			})
		}, class: errdefs.ErrDataLoss, want: "more than the"},
		"a diffID that is another's": {edit: func(_ *hub, _ *ocispec.Manifest, c *dockerspec.DockerOCIImage) {
			c.RootFS.DiffIDs[0] = digest.FromBytes(other.plain)
		}, class: errdefs.ErrDataLoss, want: "image's configuration says"},
		"a size that is wrong": {edit: func(_ *hub, m *ocispec.Manifest, _ *dockerspec.DockerOCIImage) {
			m.Layers[0].Size++
		}, class: errdefs.ErrUnavailable, want: "broke off"},
		"fewer layers than the configuration names": {edit: func(_ *hub, _ *ocispec.Manifest, c *dockerspec.DockerOCIImage) {
			c.RootFS.DiffIDs = append(c.RootFS.DiffIDs, digest.FromString("x"))
		}, class: errdefs.ErrUnavailable, want: "names 2 layers and the manifest 1"},
		"a layer that is no tar": {edit: func(h *hub, m *ocispec.Manifest, c *dockerspec.DockerOCIImage) {
			b := bytes.Repeat([]byte("garbage "), 1000)
			m.Layers[0] = h.blob("x", b)
			m.Layers[0].MediaType = ocispec.MediaTypeImageLayer
			c.RootFS.DiffIDs[0] = digest.FromBytes(b)
		}, class: errdefs.ErrDataLoss, want: "bad layer"},
		"a layer whose gzip is cut, as pushed": {edit: func(h *hub, m *ocispec.Manifest, _ *dockerspec.DockerOCIImage) {
			m.Layers[0] = h.blob("x", good.packed[:len(good.packed)/2])
			m.Layers[0].MediaType = ocispec.MediaTypeImageLayerGzip
		}, class: errdefs.ErrDataLoss, want: "nothing of it is kept"},
		"a layer that climbs out": {edit: func(h *hub, m *ocispec.Manifest, c *dockerspec.DockerOCIImage) {
			b := tarOf(t, map[string]string{"../../etc/passwd": "x"})
			m.Layers[0] = h.blob("x", b)
			m.Layers[0].MediaType = ocispec.MediaTypeImageLayer
			c.RootFS.DiffIDs[0] = digest.FromBytes(b)
		}, class: errdefs.ErrDataLoss, want: "../../etc/passwd"},
		"a foreign layer": {edit: func(_ *hub, m *ocispec.Manifest, _ *dockerspec.DockerOCIImage) {
			m.Layers[0].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		}, class: errdefs.ErrUnavailable, want: "foreign"},
		"a layer of an unknown type": {edit: func(_ *hub, m *ocispec.Manifest, _ *dockerspec.DockerOCIImage) {
			m.Layers[0].MediaType = "application/vnd.example.model"
		}, class: errdefs.ErrUnavailable, want: "application/vnd.example.model"},
		"an artifact": {edit: func(h *hub, m *ocispec.Manifest, _ *dockerspec.DockerOCIImage) {
			m.Config = h.blob("x", []byte("{}"))
			m.Config.MediaType = "application/vnd.cncf.helm.config.v1+json"
		}, class: errdefs.ErrUnavailable, want: "no image"},
		"a configuration that is not JSON": {edit: func(h *hub, m *ocispec.Manifest, _ *dockerspec.DockerOCIImage) {
			m.Config = h.blob("x", []byte("<html>"))
			m.Config.MediaType = ocispec.MediaTypeImageConfig
		}, class: errdefs.ErrUnavailable, want: "not JSON"},
		"a manifest that is not JSON":   {faults: func(*ocispec.Manifest) faults { return manifestOf(ocispec.MediaTypeImageManifest, "{\"") }, want: "not JSON"},
		"a page in place of a manifest": {faults: func(*ocispec.Manifest) faults { return manifestOf("text/html", "<html>") }, want: "no image"},
		"a manifest with a digest that is none": {faults: func(*ocispec.Manifest) faults {
			return manifestOf(ocispec.MediaTypeImageManifest, `{"schemaVersion":2,"config":{"digest":"sha256:../../x"}}`)
		}, want: "digest"},
		"a manifest that is too long": {faults: func(*ocispec.Manifest) faults {
			return manifestOf(ocispec.MediaTypeImageManifest, strings.Repeat(" ", maxManifest+1))
		}, want: "manifest of more than"},
		"an image of schema 1": {faults: func(*ocispec.Manifest) faults {
			return manifestOf("application/vnd.docker.distribution.manifest.v1+prettyjws", `{"schemaVersion":1}`)
		}, want: "schema 1"},
		"401":                        {faults: func(*ocispec.Manifest) faults { return status(401) }, class: errdefs.ErrPermissionDenied, want: "pull access denied for "},
		"a server that always fails": {faults: func(*ocispec.Manifest) faults { return status(503) }, class: errdefs.ErrUnavailable, want: "status 503 Service Unavailable"},
		"429":                        {faults: func(*ocispec.Manifest) faults { return status(429) }, class: errdefs.ErrUnavailable, want: "limits the rate"},
		"no such image": {faults: func(*ocispec.Manifest) faults {
			return func(w http.ResponseWriter, r *http.Request, _ http.Handler) bool {
				if !strings.Contains(r.URL.Path, "manifests") {
					return false
				}
				w.WriteHeader(404)
				_, _ = w.Write([]byte(`{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}`))
				return true
			}
		}, class: errdefs.ErrNotFound, want: "/x:latest not found: manifest unknown: manifest unknown"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			_, m := h.push("x", "latest", []layer{good}, func(m *ocispec.Manifest, cfg *dockerspec.DockerOCIImage) {
				if c.edit != nil {
					c.edit(h, m, cfg)
				}
			})
			if c.faults != nil {
				h.spoiled(c.faults(m))
			}
			s := newStore(t)
			_, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) || c.class != nil && !errors.Is(err, c.class) {
				t.Errorf("got %v, and it should say %q", err, c.want)
			}
			if left := leftovers(t, s); len(left) > 0 {
				t.Errorf("left: %q", left)
			}
			if list, err := s.List(); err != nil || len(list) > 0 {
				t.Errorf("images: %v %v", list, err)
			}
		})
	}
}

func TestAPullOutlivesWhatPasses(t *testing.T) {
	big := noise(t, 6<<20)
	for name, c := range map[string]struct {
		times int // of the fault
		f     func(w http.ResponseWriter, r *http.Request, next http.Handler)
	}{
		"a server that fails twice": {2, func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(500) }},
		"a connection that is cut, with ranges": {3, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			cut(w, r, big.packed, true)
		}},
		"a connection that is cut, without ranges": {2, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			cut(w, r, big.packed, false)
		}},
		"a server that falls silent": {1, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
			w.Header().Set("Content-Length", fmt.Sprint(len(big.packed)))
			_, _ = w.Write(big.packed[:1<<20])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t)
			_, m := h.push("x", "latest", []layer{big}, nil)
			var mu sync.Mutex
			n := 0
			h.spoiled(onBlob(m.Layers[0].Digest, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				mu.Lock()
				n++
				bad := n <= c.times
				mu.Unlock()
				if bad {
					c.f(w, r, next)
					return
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(big.packed))
			}))
			s := newStore(t)
			s.cfg.Timeout = duration(time.Second)
			if _, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{}); err != nil {
				t.Fatal(err)
			}
			if n != c.times+1 {
				t.Errorf("the layer was asked for %d times", n)
			}
		})
	}
}

// cut sends a part of b and breaks off.
func cut(w http.ResponseWriter, r *http.Request, b []byte, ranges bool) {
	at := 0
	code := 200
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &at); err == nil && ranges {
		code = 206
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", at, len(b)-1, len(b)))
	} else {
		at = 0
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(b)-at))
	w.WriteHeader(code)
	_, _ = w.Write(b[at : at+1<<20])
	panic(http.ErrAbortHandler)
}

func TestASilentServerIsAnError(t *testing.T) {
	h := newHub(t)
	h.spoiled(func(_ http.ResponseWriter, r *http.Request, _ http.Handler) bool { <-r.Context().Done(); return true })
	s := newStore(t)
	s.cfg.Timeout = duration(300 * time.Millisecond)
	began := time.Now()
	_, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{})
	if !errors.Is(err, errdefs.ErrUnavailable) || !strings.Contains(err.Error(), "in time") {
		t.Error(err)
	}
	if time.Since(began) > 5*time.Second {
		t.Errorf("it took %s", time.Since(began))
	}
}

func TestACancelledPullLeavesNothing(t *testing.T) {
	h := newHub(t)
	big := noise(t, 6<<20)
	_, m := h.push("x", "latest", []layer{big}, nil)
	ctx, cancel := context.WithCancel(t.Context())
	h.spoiled(onBlob(m.Layers[0].Digest, func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Length", fmt.Sprint(len(big.packed)))
		_, _ = w.Write(big.packed[:1<<20])
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}))
	s := newStore(t)
	if _, err := s.Pull(ctx, mustRef(t, h.host+"/x"), PullOptions{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if left := leftovers(t, s); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestPullsAtOnceFetchALayerOnce(t *testing.T) {
	h := newHub(t)
	_, m := h.push("x", "latest", []layer{noise(t, 1<<20), noise(t, 1<<20)}, nil)
	h.spoiled(nil)
	root := newStore(t).root
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := Open(root, Config{}) // as another process would
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, l := range m.Layers {
		if n := h.fetched(l.Digest.String()); n != 1 {
			t.Errorf("layer %s was fetched %d times", l.Digest, n)
		}
	}
}

func TestMirrorsAreAskedFirst(t *testing.T) {
	mirror, origin := newHub(t), newHub(t)
	mirror.push("x", "latest", []layer{noise(t, 100)}, nil)
	origin.push("y", "latest", []layer{noise(t, 100)}, nil)
	s := newStore(t)
	s.cfg.Registries = map[string]RegistryConfig{origin.host: {Mirrors: []string{"127.0.0.1:1", mirror.host}}}
	for _, repo := range []string{"x", "y"} {
		img, err := s.Pull(t.Context(), mustRef(t, origin.host+"/"+repo), PullOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(img.RepoTags, []string{origin.host + "/" + repo + ":latest"}) {
			t.Errorf("names: %q", img.RepoTags)
		}
	}
}

func TestADamagedLayerIsFetchedAgain(t *testing.T) {
	h := newHub(t)
	h.push("x", "latest", []layer{noise(t, 1<<20)}, nil)
	s := newStore(t)
	img, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(img.LayerPaths()[0], 4096); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), h.host+"/x", ""); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("an image without its layer: %v", err)
	}
	if _, err := s.Pull(t.Context(), mustRef(t, h.host+"/x"), PullOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(t.Context(), h.host+"/x", ""); err != nil {
		t.Error(err)
	}
}

func TestWhatDeadPullsLeftIsSwept(t *testing.T) {
	s := newStore(t)
	if err := s.prepare(); err != nil {
		t.Fatal(err)
	}
	old := time.Now().Add(-time.Hour)
	dead, alive := s.path("tmp", "layer-dead"), s.path("tmp", "layer-alive")
	for _, p := range []string{dead, alive} {
		if err := os.WriteFile(p, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := lockFile(t.Context(), alive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range []string{dead, alive} {
		if err := os.Chtimes(p, old, old); err != nil {
			t.Fatal(err)
		}
	}
	s.sweep()
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Error("what a dead pull left is still there")
	}
	if _, err := os.Stat(alive); err != nil {
		t.Error("the file of a pull that is alive was swept")
	}
}
