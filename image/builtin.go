package image

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"runtime"

	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// InstallBuiltin puts an image that is part of the program into the store, unless it is there already: name (with
// BuiltinPrefix), the tar of its one layer, its configuration. It goes the way of every layer, but for the network.
func (s *Store) InstallBuiltin(ctx context.Context, name string, layerTar []byte, config dockerspec.DockerOCIImageConfig) (*Image, error) {
	if err := s.prepare(); err != nil {
		return nil, err
	}
	diffID := digest.FromBytes(layerTar)
	cfg := dockerspec.DockerOCIImage{Config: config}
	cfg.OS, cfg.Architecture = "linux", runtime.GOARCH
	cfg.RootFS = ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{diffID}}
	configRaw, err := json.Marshal(cfg)
	if err != nil {
		return nil, err
	}
	man := &ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest,
		Config: ocispec.Descriptor{MediaType: ocispec.MediaTypeImageConfig, Digest: digest.FromBytes(configRaw), Size: int64(len(configRaw))},
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: diffID, Size: int64(len(layerTar))}},
	}
	if img, err := s.Get(ctx, name, ""); err == nil && img.ID == man.Config.Digest.String() {
		return img, nil
	}
	raw, err := json.Marshal(man)
	if err != nil {
		return nil, err
	}
	if s.has(diffID) {
		// from another image, or from one that lost its name
	} else if err := s.storeLayer(io.NopCloser(bytes.NewReader(layerTar)), man.Layers[0], diffID); err != nil {
		return nil, err
	}
	d := ocispec.Descriptor{MediaType: man.MediaType, Digest: digest.FromBytes(raw), Size: int64(len(raw))}
	img, _, err := s.commit(name, "", d, man, raw, configRaw, PullOptions{})
	return img, err
}
