package image

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/image/erofs"
)

// PullOptions are those of a pull. The zero value pulls for this machine, silently.
type PullOptions struct {
	Platform string
	Progress Progress // nil: nobody looks
	Trace    func(step, detail string, took time.Duration)
}

// Limits on what a stranger's registry may make us read into memory.
const (
	maxManifest = 4 << 20 // as the distribution spec has it
	maxConfig   = 16 << 20
	maxLayers   = 1000
)

// parallelLayers are fetched at once.
const parallelLayers = 4

// Pull fetches an image, and returns it when all of it is in the store and verified. Layers that are there are not
// fetched. When it fails nothing new is visible, and what was complete stays for the next try.
func (s *Store) Pull(ctx context.Context, ref Reference, o PullOptions) (*Image, error) {
	if o.Trace == nil {
		o.Trace = func(string, string, time.Duration) {}
	}
	if o.Progress == nil {
		o.Progress = silent{}
	}
	want, err := parsePlatform(o.Platform)
	if err != nil {
		return nil, err
	}
	if err := s.prepare(); err != nil {
		return nil, err
	}
	s.sweep()
	o.Progress.Message(cmp.Or(ref.Tag(), ref.Digest()) + ": Pulling from " + ref.Path())
	var failed []error
	for _, host := range s.cfg.sources(ref.Host()) {
		img, err := s.pullFrom(ctx, ref, host, want, o)
		if err == nil {
			return img, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		failed = append(failed, err)
		if errors.Is(err, errLocal) {
			break // another registry would not help
		}
	}
	// The registry itself comes last, and its word counts most.
	return nil, failed[len(failed)-1]
}

func (s *Store) pullFrom(ctx context.Context, ref Reference, host string, want ocispec.Platform, o PullOptions) (*Image, error) {
	began := time.Now()
	src, err := s.source(host, ref.Path())
	if err != nil {
		return nil, err
	}
	top, raw, err := src.manifest(ctx, ref)
	if err != nil {
		return nil, explain(err, ref, host)
	}
	repoDigest := ref.withDigest(top.Digest.String())
	man, d, raw, err := src.image(ctx, ref, top, raw, want)
	if err != nil {
		return nil, explain(err, ref, host)
	}
	config, configRaw, err := src.config(ctx, man)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", ref.Familiar(), explain(err, ref, host))
	}
	o.Trace("resolve", ref.String()+" is "+d.Digest.String()[:19], time.Since(began))

	var img *Image
	var isNew bool
	for try := 1; ; try++ {
		if err := s.layers(ctx, src, ref, man, config, o); err != nil {
			return nil, err
		}
		img, isNew, err = s.commit(ref.String(), repoDigest, d, man, raw, configRaw, o)
		// Another process may remove an image meanwhile, and with it a layer that was here when we looked.
		if !errors.Is(err, errRemoved) || try == layerTries {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	o.Progress.Done()
	o.Progress.Message("Digest: " + top.Digest.String())
	if isNew {
		o.Progress.Message("Status: Downloaded newer image for " + ref.Familiar())
	} else {
		o.Progress.Message("Status: Image is up to date for " + ref.Familiar())
	}
	return img, nil
}

// layers fetches those of an image that are not there.
func (s *Store) layers(ctx context.Context, src *source, ref Reference, man *ocispec.Manifest, config *configFile, o PullOptions) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(parallelLayers)
	seen := map[digest.Digest]bool{}
	for i, l := range man.Layers {
		diffID := config.RootFS.DiffIDs[i]
		if seen[diffID] {
			continue
		}
		seen[diffID] = true
		g.Go(func() error { return s.fetchLayer(ctx, src, ref, l, diffID, o) })
	}
	return g.Wait()
}

// commit makes an image visible whose layers are all there: its merged index, its blobs, and at last its name.
func (s *Store) commit(ref, repoDigest string, d ocispec.Descriptor, man *ocispec.Manifest, raw, configRaw []byte, o PullOptions) (*Image, bool, error) {
	if o.Trace == nil {
		o.Trace = func(string, string, time.Duration) {}
	}
	began := time.Now()
	for _, b := range [][]byte{configRaw, raw} {
		if _, err := s.writeBlob(b); err != nil {
			return nil, false, diskError(err)
		}
	}
	d.Annotations = map[string]string{nameAnnotation: ref, idAnnotation: man.Config.Digest.String()}
	if repoDigest != "" {
		d.Annotations[digestAnnotation] = repoDigest
	}
	img, err := s.load(d)
	if err != nil {
		return nil, false, err
	}
	if err := s.merge(img); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = errRemoved
		}
		return nil, false, diskError(err)
	}
	isNew := true
	err = s.change(func(ix *ocispec.Index) error {
		// Somebody may have removed a layer as unused since we looked.
		if !img.Complete() {
			return errRemoved
		}
		var kept []ocispec.Descriptor
		for _, e := range ix.Manifests {
			if e.Annotations[nameAnnotation] != ref {
				kept = append(kept, e)
				continue
			}
			isNew = isNew && !(e.Digest == d.Digest && maps.Equal(e.Annotations, d.Annotations))
			if e.Annotations[idAnnotation] != img.ID {
				// The image that had the name stays, without one.
				e.Annotations = maps.Clone(e.Annotations)
				delete(e.Annotations, nameAnnotation)
				kept = append(kept, e)
			}
		}
		// An image that was nameless and has a name again needs no second entry.
		kept = slices.DeleteFunc(kept, func(e ocispec.Descriptor) bool {
			return e.Annotations[nameAnnotation] == "" && e.Annotations[idAnnotation] == img.ID
		})
		ix.Manifests = append(kept, d)
		img.names(ix)
		return nil
	})
	if err != nil {
		return nil, false, err
	}
	o.Trace("index", img.IndexPath(), time.Since(began))
	return img, isNew, nil
}

// merge makes the image's merged index unless it is there.
func (s *Store) merge(img *Image) error {
	if img.Complete() {
		return nil
	}
	f, err := os.CreateTemp(s.path("tmp"), "index-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // says to others that it is not left over
	if err := erofs.Merge(f, img.LayerPaths()); err != nil {
		return fmt.Errorf("merge the layers: %w", err)
	}
	return os.Rename(f.Name(), img.IndexPath())
}
