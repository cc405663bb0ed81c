package image

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/klauspost/compress/zstd"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// hub is a registry in this process whose answers a test can spoil.
type hub struct {
	t    *testing.T
	srv  *httptest.Server
	host string

	mu    sync.Mutex // guards all below
	asked []string   // "GET /v2/x/blobs/sha256:..."
	spoil func(w http.ResponseWriter, r *http.Request, next http.Handler) bool
}

func newHub(t *testing.T) *hub {
	h := &hub{t: t}
	real := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	h.srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.asked = append(h.asked, r.Method+" "+r.URL.Path)
		spoil := h.spoil
		h.mu.Unlock()
		if spoil == nil || !spoil(w, r, real) {
			real.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(h.srv.Close)
	h.host = strings.TrimPrefix(h.srv.URL, "http://")
	return h
}

func (h *hub) spoiled(f func(w http.ResponseWriter, r *http.Request, next http.Handler) bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.spoil, h.asked = f, nil
}

// fetched counts the GETs of blobs and manifests that hold part.
func (h *hub) fetched(part string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, a := range h.asked {
		if strings.HasPrefix(a, "GET ") && strings.Contains(a, part) {
			n++
		}
	}
	return n
}

// do sends what a push would, and wants it to be accepted.
func (h *hub) do(method, path, contentType string, body []byte) *http.Response {
	h.t.Helper()
	req, err := http.NewRequest(method, h.srv.URL+path, bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode >= 300 {
		b, _ := io.ReadAll(resp.Body)
		h.t.Fatalf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	return resp
}

func (h *hub) blob(repo string, b []byte) ocispec.Descriptor {
	h.t.Helper()
	d := digest.FromBytes(b)
	h.do(http.MethodPost, "/v2/"+repo+"/blobs/uploads/?digest="+d.String(), "application/octet-stream", b)
	return ocispec.Descriptor{Digest: d, Size: int64(len(b))}
}

func (h *hub) manifest(repo, tag, mediaType string, m any) ocispec.Descriptor {
	h.t.Helper()
	b, ok := m.([]byte)
	if !ok {
		var err error
		if b, err = json.Marshal(m); err != nil {
			h.t.Fatal(err)
		}
	}
	d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
	if tag == "" {
		tag = d.Digest.String()
	}
	h.do(http.MethodPut, "/v2/"+repo+"/manifests/"+tag, mediaType, b)
	return d
}

// layer is one of an image that is to be pushed.
type layer struct {
	plain, packed []byte
	mediaType     string
}

// push puts an image into the registry.
func (h *hub) push(repo, tag string, layers []layer, edit func(*ocispec.Manifest, *dockerspec.DockerOCIImage)) (ocispec.Descriptor, *ocispec.Manifest) {
	h.t.Helper()
	cfg := &dockerspec.DockerOCIImage{}
	cfg.OS, cfg.Architecture = "linux", here().Architecture
	cfg.Config.Cmd, cfg.Config.Env = []string{"/bin/sh"}, []string{"A=1"}
	cfg.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{}}
	man := &ocispec.Manifest{MediaType: ocispec.MediaTypeImageManifest, Layers: []ocispec.Descriptor{}}
	man.SchemaVersion = 2
	for _, l := range layers {
		d := h.blob(repo, l.packed)
		d.MediaType = l.mediaType
		man.Layers = append(man.Layers, d)
		cfg.RootFS.DiffIDs = append(cfg.RootFS.DiffIDs, digest.FromBytes(l.plain))
	}
	if edit != nil {
		edit(man, cfg)
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		h.t.Fatal(err)
	}
	if man.Config.Digest == "" {
		man.Config = h.blob(repo, raw)
		man.Config.MediaType = ocispec.MediaTypeImageConfig
	}
	return h.manifest(repo, tag, man.MediaType, man), man
}

func here() ocispec.Platform { p, _ := parsePlatform(""); return p }

// tarOf is a tar with one file for each name.
func tarOf(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, body := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(body)), ModTime: time.Unix(1000, 0)}); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, body)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gzipped(plain []byte) layer {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, _ = w.Write(plain)
	w.Close()
	return layer{plain, b.Bytes(), ocispec.MediaTypeImageLayerGzip}
}

func zstded(plain []byte) layer {
	w, _ := zstd.NewWriter(nil)
	return layer{plain, w.EncodeAll(plain, nil), ocispec.MediaTypeImageLayerZstd}
}

func uncompressed(plain []byte) layer { return layer{plain, plain, ocispec.MediaTypeImageLayer} }

// noise is a layer of n bytes that does not become smaller.
func noise(t testing.TB, n int) layer {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return gzipped(tarOf(t, map[string]string{"noise": string(b)}))
}

func newStore(t testing.TB) *Store {
	t.Helper()
	s, err := Open(filepath.Join(t.TempDir(), "store"), Config{Timeout: duration(5 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustRef(t testing.TB, s string) Reference {
	t.Helper()
	r, err := ParseReference(s)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// leftovers lists what lies in the store and should not after a pull that failed.
func leftovers(t *testing.T, s *Store) []string {
	t.Helper()
	var left []string
	for _, dir := range []string{"tmp", "layers", "images"} {
		entries, err := os.ReadDir(s.path(dir))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			left = append(left, fmt.Sprintf("%s/%s", dir, e.Name()))
		}
	}
	return left
}
