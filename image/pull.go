package image

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
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

// manifest fetches what the reference names: a manifest, or an index of them.
func (src *source) manifest(ctx context.Context, ref Reference) (ocispec.Descriptor, []byte, error) {
	var r name.Reference = src.repo.Tag(ref.Tag())
	if d := ref.Digest(); d != "" {
		r = src.repo.Digest(d)
	}
	return src.get(ctx, r)
}

func (src *source) get(ctx context.Context, r name.Reference) (ocispec.Descriptor, []byte, error) {
	got, err := src.from.Get(ctx, r)
	if err != nil {
		return ocispec.Descriptor{}, nil, err
	}
	// The digest of what came, and not of what a header claims.
	d := ocispec.Descriptor{MediaType: string(got.MediaType), Size: int64(len(got.Manifest)), Digest: digest.FromBytes(got.Manifest)}
	if want, ok := r.(name.Digest); ok && want.DigestStr() != d.Digest.String() {
		return d, nil, fmt.Errorf("the registry sent a manifest with digest %s for %s", d.Digest, want.DigestStr())
	}
	return d, got.Manifest, nil
}

// image finds the manifest for a platform behind what a reference names, through indexes of indexes if need be.
func (src *source) image(ctx context.Context, ref Reference, d ocispec.Descriptor, raw []byte, want ocispec.Platform) (*ocispec.Manifest, ocispec.Descriptor, []byte, error) {
	for range 4 {
		switch kindOf(d.MediaType, raw) {
		case kindIndex:
			var ix ocispec.Index
			if err := json.Unmarshal(raw, &ix); err != nil {
				return nil, d, nil, because(errdefs.ErrUnavailable, "the registry sent an index that is not JSON: %w", err)
			}
			chosen, ok := choose(ix.Manifests, want)
			if !ok {
				var have []string
				for _, m := range ix.Manifests {
					if m.Platform != nil && m.Platform.OS != "unknown" {
						have = append(have, formatPlatform(*m.Platform))
					}
				}
				return nil, d, nil, because(errdefs.ErrNotFound, "no matching manifest for %s in the manifest list entries of %s: there are %s", formatPlatform(want), ref.Familiar(), strings.Join(have, ", "))
			}
			if err := chosen.Digest.Validate(); err != nil {
				return nil, d, nil, fmt.Errorf("index of %s: %w", ref.Familiar(), err)
			}
			next, body, err := src.get(ctx, src.repo.Digest(chosen.Digest.String()))
			if err != nil {
				return nil, d, nil, err
			}
			if chosen.MediaType != "" {
				next.MediaType = chosen.MediaType
			}
			next.Platform = chosen.Platform
			d, raw = next, body
		case kindImage:
			man := new(ocispec.Manifest)
			if err := json.Unmarshal(raw, man); err != nil {
				return nil, d, nil, because(errdefs.ErrUnavailable, "the registry sent a manifest that is not JSON: %w", err)
			}
			if err := checkManifest(man); err != nil {
				return nil, d, nil, fmt.Errorf("manifest of %s: %w", ref.Familiar(), err)
			}
			return man, d, raw, nil
		case kindOld:
			return nil, d, nil, because(errdefs.ErrUnavailable, "%s is an image of docker's old format (schema 1), which has been given up: push it again with a newer docker", ref.Familiar())
		default:
			return nil, d, nil, because(errdefs.ErrUnavailable, "the registry sent for %s a thing of type %q, which is no image", ref.Familiar(), d.MediaType)
		}
	}
	return nil, d, nil, fmt.Errorf("index of %s: too many indexes within each other", ref.Familiar())
}

type manifestKind int

const (
	kindNone manifestKind = iota
	kindIndex
	kindImage
	kindOld
)

// kindOf tells what a manifest is: by its media type, or by its fields where the registry names none that is known.
func kindOf(mediaType string, raw []byte) manifestKind {
	switch mediaType {
	case ocispec.MediaTypeImageIndex, "application/vnd.docker.distribution.manifest.list.v2+json":
		return kindIndex
	case ocispec.MediaTypeImageManifest, "application/vnd.docker.distribution.manifest.v2+json":
		return kindImage
	case "application/vnd.docker.distribution.manifest.v1+json", "application/vnd.docker.distribution.manifest.v1+prettyjws":
		return kindOld
	}
	var probe struct {
		SchemaVersion int
		Manifests     []json.RawMessage
		Config        json.RawMessage
	}
	switch err := json.Unmarshal(raw, &probe); {
	case err != nil:
		return kindNone
	case probe.SchemaVersion == 1:
		return kindOld
	case probe.Manifests != nil:
		return kindIndex
	case probe.Config != nil:
		return kindImage
	}
	return kindNone
}

func checkManifest(m *ocispec.Manifest) error {
	if m.SchemaVersion != 2 {
		return fmt.Errorf("schema version %d is not known", m.SchemaVersion)
	}
	if len(m.Layers) > maxLayers {
		return fmt.Errorf("%d layers are more than the %d that an image may have", len(m.Layers), maxLayers)
	}
	for _, d := range append([]ocispec.Descriptor{m.Config}, m.Layers...) {
		if err := d.Digest.Validate(); err != nil {
			return fmt.Errorf("digest %q: %w", d.Digest, err)
		}
		if d.Digest.Algorithm() != digest.SHA256 {
			return fmt.Errorf("digest %s: only sha256 is supported", d.Digest)
		}
		if d.Size < 0 {
			return fmt.Errorf("blob %s: size %d", d.Digest, d.Size)
		}
	}
	for _, l := range m.Layers {
		switch t := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(l.MediaType, "+gzip"), "+zstd"), ".gzip"); {
		case strings.Contains(t, "foreign") || strings.Contains(t, "nondistributable"):
			return because(errdefs.ErrUnavailable, "layer %s is foreign (%s): no registry gives it away, as with Windows' base images", l.Digest.Encoded()[:12], l.MediaType)
		case t != "" && t != ocispec.MediaTypeImageLayer && t != "application/vnd.docker.image.rootfs.diff.tar":
			return because(errdefs.ErrUnavailable, "layer %s is of a type that is not known (%s)", l.Digest.Encoded()[:12], l.MediaType)
		}
	}
	switch m.Config.MediaType {
	case ocispec.MediaTypeImageConfig, "application/vnd.docker.container.image.v1+json", "":
		return nil
	}
	return because(errdefs.ErrUnavailable, "a configuration of type %q: this is an artifact, and no image", m.Config.MediaType)
}

// configFile is what of a configuration the pull itself needs.
type configFile struct {
	RootFS ocispec.RootFS `json:"rootfs"`
}

func (src *source) config(ctx context.Context, m *ocispec.Manifest) (*configFile, []byte, error) {
	if m.Config.Size > maxConfig {
		return nil, nil, fmt.Errorf("configuration of %d bytes is more than the %d that one may have", m.Config.Size, maxConfig)
	}
	raw, err := src.blob(ctx, m.Config, maxConfig)
	if err != nil {
		return nil, nil, err
	}
	c := new(configFile)
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, nil, because(errdefs.ErrUnavailable, "the configuration is not JSON: %w", err)
	}
	if len(c.RootFS.DiffIDs) != len(m.Layers) {
		return nil, nil, because(errdefs.ErrUnavailable, "the configuration names %d layers and the manifest %d", len(c.RootFS.DiffIDs), len(m.Layers))
	}
	for _, d := range c.RootFS.DiffIDs {
		if err := d.Validate(); err != nil || d.Algorithm() != digest.SHA256 {
			return nil, nil, because(errdefs.ErrUnavailable, "the configuration's layer id %q is not a sha256 digest", d)
		}
	}
	return c, raw, nil
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
