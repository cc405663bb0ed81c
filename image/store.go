package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/image/erofs"
)

// Store is an image store in a folder. It holds nothing in memory: several processes may work on one folder.
type Store struct {
	root string
	cfg  Config
}

// Open opens the store below root. Its folders are made when something is written.
func Open(root string, cfg Config) (*Store, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return nil, err
	}
	return &Store{root: root, cfg: cfg}, nil
}

func (s *Store) path(parts ...string) string {
	return filepath.Join(append([]string{s.root}, parts...)...)
}
func (s *Store) blob(d digest.Digest) string {
	return s.path("blobs", d.Algorithm().String(), d.Encoded())
}
func (s *Store) layer(diffID digest.Digest) string {
	return s.path("layers", diffID.Encoded()+".erofs")
}
func (s *Store) index(chainID digest.Digest) string {
	return s.path("images", chainID.Encoded()+".erofs")
}

// prepare makes the store's folders.
func (s *Store) prepare() error {
	for _, d := range []string{"blobs/sha256", "layers", "images", "tmp"} {
		if err := os.MkdirAll(s.path(d), 0o700); err != nil {
			return fmt.Errorf("make the store: %w; set MOSS_ROOT to a folder that you may write", err)
		}
	}
	layout := s.path("oci-layout")
	if _, err := os.Stat(layout); err != nil {
		return s.writeFile(layout, []byte(`{"imageLayoutVersion":"1.0.0"}`))
	}
	return nil
}

// Annotations of index.json's entries.
const (
	nameAnnotation   = ocispec.AnnotationRefName // the full reference; missing for an image that lost its name
	digestAnnotation = "moss.repo-digest"        // repository@digest, as the registry knows what was pulled
	idAnnotation     = "moss.config"             // the configuration's digest: the image's id
)

// readIndex reads which images there are.
func (s *Store) readIndex() (*ocispec.Index, error) {
	ix := &ocispec.Index{MediaType: ocispec.MediaTypeImageIndex}
	ix.SchemaVersion = 2
	b, err := os.ReadFile(s.path("index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return ix, nil
	}
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, ix); err != nil {
		return nil, fmt.Errorf("%s is damaged: %w; remove it and pull the images again (their layers stay)", s.path("index.json"), err)
	}
	return ix, nil
}

// change lets f change which images there are. Only one process does so at a time.
func (s *Store) change(f func(ix *ocispec.Index) error) error {
	if err := s.prepare(); err != nil {
		return err
	}
	lock, err := lockFile(context.Background(), s.path("index.lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	ix, err := s.readIndex()
	if err != nil {
		return err
	}
	if err := f(ix); err != nil {
		return err
	}
	return s.writeIndex(ix)
}

// writeIndex replaces index.json. The caller holds its lock.
func (s *Store) writeIndex(ix *ocispec.Index) error {
	b, err := json.Marshal(ix)
	if err != nil {
		return err
	}
	return s.writeFile(s.path("index.json"), b)
}

// writeFile puts a whole file in its place at once.
func (s *Store) writeFile(path string, b []byte) error {
	f, err := os.CreateTemp(s.path("tmp"), "write-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// writeBlob keeps a manifest or a configuration under its digest.
func (s *Store) writeBlob(b []byte) (digest.Digest, error) {
	d := digest.FromBytes(b)
	if have, err := os.ReadFile(s.blob(d)); err == nil && digest.FromBytes(have) == d {
		return d, nil
	}
	return d, s.writeFile(s.blob(d), b)
}

// readBlob reads a blob that is small, and makes sure that it is what its name says.
func (s *Store) readBlob(d digest.Digest) ([]byte, error) {
	if err := d.Validate(); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(s.blob(d))
	if err != nil {
		return nil, err
	}
	if digest.FromBytes(b) != d {
		return nil, fmt.Errorf("blob %s is damaged on disk; pull the image again", d)
	}
	return b, nil
}

// lockFile takes a lock, and waits for it as long as ctx lets it. Closing the file gives it back.
func lockFile(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	got := make(chan error, 1)
	go func() {
		for {
			err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
			if err != unix.EINTR {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		return f, nil
	case <-ctx.Done():
		go func() { <-got; f.Close() }()
		return nil, ctx.Err()
	}
}

// sweep removes what pulls left in tmp when they were killed: files that nobody holds a lock on.
func (s *Store) sweep() {
	entries, _ := os.ReadDir(s.path("tmp"))
	for _, e := range entries {
		p := s.path("tmp", e.Name())
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		fi, err := f.Stat()
		// A file has its lock a moment after it is made.
		if err == nil && time.Since(fi.ModTime()) > time.Minute && unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
			os.Remove(p)
		}
		f.Close()
	}
}

// Image is one image in a store.
type Image struct {
	ID          string // the configuration's digest
	Config      dockerspec.DockerOCIImage
	RepoTags    []string // familiar names
	RepoDigests []string
	Manifest    ocispec.Manifest
	Descriptor  ocispec.Descriptor // of the manifest
	Size        int64              // of the layer files

	store *Store
}

// load reads the image that an entry of the index means.
func (s *Store) load(d ocispec.Descriptor) (*Image, error) {
	img := &Image{Descriptor: d, store: s}
	b, err := s.readBlob(d.Digest)
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &img.Manifest); err != nil {
		return nil, fmt.Errorf("manifest %s: %w", d.Digest, err)
	}
	if b, err = s.readBlob(img.Manifest.Config.Digest); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(b, &img.Config); err != nil {
		return nil, fmt.Errorf("configuration %s: %w", img.Manifest.Config.Digest, err)
	}
	img.ID = img.Manifest.Config.Digest.String()
	for _, l := range img.LayerPaths() {
		if fi, err := os.Stat(l); err == nil {
			img.Size += fi.Size()
		}
	}
	return img, nil
}

// ChainID names the stack of the image's layers.
func (i *Image) ChainID() digest.Digest {
	if len(i.Config.RootFS.DiffIDs) == 0 {
		return digest.FromString("")
	}
	return identity.ChainID(i.Config.RootFS.DiffIDs)
}

// IndexPath is the merged index of the image's tree.
func (i *Image) IndexPath() string { return i.store.index(i.ChainID()) }

// LayerPaths are the layer files, the bottom first.
func (i *Image) LayerPaths() []string {
	paths := []string{}
	for _, d := range i.Config.RootFS.DiffIDs {
		paths = append(paths, i.store.layer(d))
	}
	return paths
}

// Complete says whether all files of the image are there and whole: a machine that lost its power may have left one that
// is too short. What is not complete is as good as not there, and a pull mends it.
func (i *Image) Complete() bool {
	tree, err := erofs.Open(i.IndexPath(), i.LayerPaths())
	if err != nil {
		return false
	}
	tree.Close()
	return true
}

// ContainerConfig is the image's configuration as docker's containers have it.
func (i *Image) ContainerConfig() *container.Config {
	c := i.Config.Config
	out := &container.Config{
		User: c.User, Env: c.Env, Entrypoint: c.Entrypoint, Cmd: c.Cmd, WorkingDir: c.WorkingDir, Labels: c.Labels, Volumes: c.Volumes,
		StopSignal: c.StopSignal, Healthcheck: c.Healthcheck, OnBuild: c.OnBuild, Shell: c.Shell,
	}
	for p := range c.ExposedPorts {
		if port, err := network.ParsePort(p); err == nil {
			if out.ExposedPorts == nil {
				out.ExposedPorts = network.PortSet{}
			}
			out.ExposedPorts[port] = struct{}{}
		}
	}
	return out
}

// Get finds an image by name or by the beginning of its id, and, when platform is not empty, only one for that.
// errdefs.ErrNotFound when there is none that is complete.
func (s *Store) Get(ctx context.Context, name, platform string) (*Image, error) {
	missing := because(errdefs.ErrNotFound, "No such image: %s", name)
	found, err := s.match(name)
	if err != nil {
		return nil, err
	}
	want, err := parsePlatform(platform)
	if err != nil {
		return nil, err
	}
	for _, d := range found {
		img, err := s.load(d)
		if err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				continue // it has lost a file: as good as not there, and pulled again
			}
			return nil, err
		}
		if platform != "" && !satisfies(img.Config.Platform, want) || !img.Complete() {
			continue
		}
		ix, err := s.readIndex()
		if err != nil {
			return nil, err
		}
		img.names(ix)
		return img, nil
	}
	return nil, missing
}

// names fills in what the image is called.
func (i *Image) names(ix *ocispec.Index) {
	for _, d := range ix.Manifests {
		if d.Annotations[idAnnotation] != i.ID {
			continue
		}
		if n := d.Annotations[nameAnnotation]; n != "" && !strings.Contains(n, "@") {
			i.RepoTags = append(i.RepoTags, familiar(n))
		}
		if n := d.Annotations[digestAnnotation]; n != "" && !slices.Contains(i.RepoDigests, familiar(n)) {
			i.RepoDigests = append(i.RepoDigests, familiar(n))
		}
	}
	slices.Sort(i.RepoTags)
}

// match lists the entries that a name or an id prefix means. A prefix of several images is an error.
func (s *Store) match(name string) ([]ocispec.Descriptor, error) {
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	var found []ocispec.Descriptor
	full := name
	if !strings.HasPrefix(name, BuiltinPrefix) {
		ref, err := ParseReference(name)
		if err == nil {
			full = ref.String()
		}
	}
	for _, d := range ix.Manifests {
		if n := d.Annotations[nameAnnotation]; n != "" && n == full || d.Annotations[digestAnnotation] == full {
			found = append(found, d)
		}
	}
	if len(found) > 0 {
		return found, nil
	}
	prefix := strings.TrimPrefix(name, "sha256:")
	if len(prefix) < 1 || strings.Trim(prefix, "0123456789abcdef") != "" {
		return nil, nil
	}
	id := ""
	for _, d := range ix.Manifests {
		have := strings.TrimPrefix(d.Annotations[idAnnotation], "sha256:")
		if !strings.HasPrefix(have, prefix) {
			continue
		}
		if id != "" && id != have {
			return nil, because(errdefs.ErrInvalidArgument, "image id prefix %s is ambiguous", name)
		}
		id = have
		found = append(found, d)
	}
	return found, nil
}

// copyBuffer is what streams are moved in.
const copyBuffer = 256 << 10
