package image

import (
	"cmp"
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// images reads every image once, whatever number of names it has, the newest first.
func (s *Store) images() ([]*Image, error) {
	ix, err := s.readIndex()
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var all []*Image
	for _, d := range ix.Manifests {
		if id := d.Annotations[idAnnotation]; seen[id] {
			continue
		}
		img, err := s.load(d)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		seen[img.ID] = true
		img.names(ix)
		all = append(all, img)
	}
	slices.SortFunc(all, func(a, b *Image) int { return cmp.Or(b.created().Compare(a.created()), cmp.Compare(a.ID, b.ID)) })
	return all, nil
}

func (i *Image) created() time.Time {
	if i.Config.Created == nil {
		return time.Time{}
	}
	return *i.Config.Created
}

// contentSize is what the registry has of the image: the compressed layers and the configuration.
func (i *Image) contentSize() int64 {
	n := i.Descriptor.Size + i.Manifest.Config.Size
	for _, l := range i.Manifest.Layers {
		n += l.Size
	}
	return n
}

// List is every image of the store, as docker lists them.
func (s *Store) List() ([]imagetypes.Summary, error) {
	all, err := s.images()
	if err != nil {
		return nil, err
	}
	out := []imagetypes.Summary{}
	for _, img := range all {
		sum := imagetypes.Summary{
			ID: img.ID, RepoTags: img.RepoTags, RepoDigests: img.RepoDigests, Size: img.Size, SharedSize: -1, Containers: -1,
			Labels: img.Config.Config.Labels,
		}
		if !img.created().IsZero() {
			sum.Created = img.created().Unix()
		}
		m := imagetypes.ManifestSummary{ID: img.Descriptor.Digest.String(), Descriptor: img.Descriptor, Available: img.Complete(), Kind: imagetypes.ManifestKindImage}
		m.Size.Content, m.Size.Total = img.contentSize(), img.contentSize()+img.Size
		m.ImageData = &imagetypes.ImageProperties{Platform: img.Config.Platform}
		sum.Manifests = []imagetypes.ManifestSummary{m}
		out = append(out, sum)
	}
	return out, nil
}

// Inspect is everything that is known of an image.
func (s *Store) Inspect(ctx context.Context, name, platform string) (imagetypes.InspectResponse, error) {
	img, err := s.Get(ctx, name, platform)
	if err != nil {
		return imagetypes.InspectResponse{}, err
	}
	c := img.Config.Config
	r := imagetypes.InspectResponse{
		ID: img.ID, RepoTags: img.RepoTags, RepoDigests: img.RepoDigests, Comment: "", Author: img.Config.Author, Config: &c,
		Architecture: img.Config.Architecture, Variant: img.Config.Variant, Os: img.Config.OS, OsVersion: img.Config.OSVersion, Size: img.Size,
		Descriptor:  &img.Descriptor,
		GraphDriver: &storage.DriverData{Name: "moss", Data: map[string]string{"Index": img.IndexPath()}},
		RootFS:      imagetypes.RootFS{Type: "layers"},
	}
	if r.RepoTags == nil {
		r.RepoTags = []string{}
	}
	if r.RepoDigests == nil {
		r.RepoDigests = []string{}
	}
	for _, d := range img.Config.RootFS.DiffIDs {
		r.RootFS.Layers = append(r.RootFS.Layers, d.String())
	}
	if !img.created().IsZero() {
		r.Created = img.created().Format(time.RFC3339Nano)
	}
	return r, nil
}

// Tag gives an image another name.
func (s *Store) Tag(ctx context.Context, source, target string) error {
	img, err := s.Get(ctx, source, "")
	if err != nil {
		return err
	}
	ref, err := ParseReference(target)
	if err != nil {
		return err
	}
	if ref.Digest() != "" {
		return because(errdefs.ErrInvalidArgument, "refusing to create a tag with a digest reference")
	}
	return s.change(func(ix *ocispec.Index) error {
		d := img.Descriptor
		d.Annotations = map[string]string{nameAnnotation: ref.String(), idAnnotation: img.ID}
		ix.Manifests = slices.DeleteFunc(ix.Manifests, func(e ocispec.Descriptor) bool { return e.Annotations[nameAnnotation] == ref.String() })
		ix.Manifests = append(ix.Manifests, d)
		return nil
	})
}

// used is what the images of an index are made of: layers by diffID, merged indexes by chainID, blobs by digest.
func (s *Store) used(ix *ocispec.Index) (layers, chains, blobs map[digest.Digest]bool) {
	layers, chains, blobs = map[digest.Digest]bool{}, map[digest.Digest]bool{}, map[digest.Digest]bool{}
	for _, d := range ix.Manifests {
		blobs[d.Digest] = true
		img, err := s.load(d)
		if err != nil {
			continue
		}
		blobs[img.Manifest.Config.Digest] = true
		chains[img.ChainID()] = true
		for _, l := range img.Config.RootFS.DiffIDs {
			layers[l] = true
		}
	}
	return layers, chains, blobs
}
