package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
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

// copyBuffer is what streams are moved in.
const copyBuffer = 256 << 10
