package image

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/moss-run/moss/image/erofs"
)

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
