package image

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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
