package image

import (
	"context"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	imagetypes "github.com/moby/moby/api/types/image"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// RemoveOptions are those of rmi.
type RemoveOptions struct {
	Force bool
	// InUse names a container that was made from an image, and whether one of them runs. nil: there are none.
	InUse func(imageID string) (containerID string, running, ok bool)
}

// Remove takes a name from an image, and removes the image when it was the last one: docker's rules, and its words
// where it refuses. By id an image of several repositories is removed only with Force. An image that a container was
// made from is kept.
func (s *Store) Remove(ctx context.Context, name string, o RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	var done []imagetypes.DeleteResponse
	err := s.change(func(ix *ocispec.Index) error {
		found, err := s.match(name)
		if err != nil {
			return err
		}
		if len(found) == 0 {
			return because(errdefs.ErrNotFound, "No such image: %s", name)
		}
		id := found[0].Annotations[idAnnotation]
		byName := isName(found[0], name)
		var names []string // all that the image has
		for _, d := range ix.Manifests {
			if n := d.Annotations[nameAnnotation]; d.Annotations[idAnnotation] == id && n != "" {
				names = append(names, n)
			}
		}
		container, running, inUse := "", false, false
		if o.InUse != nil {
			container, running, inUse = o.InUse(id)
			container = container[:min(12, len(container))]
		}
		short := strings.TrimPrefix(id, "sha256:")
		short = short[:min(12, len(short))]
		last := !byName || !slices.ContainsFunc(names, func(n string) bool { return !goesWith(n, names, name) })
		switch {
		case !byName && repositories(names) > 1 && !o.Force:
			return because(errdefs.ErrConflict, "conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short)
		case last && inUse && running && byName:
			return because(errdefs.ErrConflict, "conflict: unable to remove repository reference %q (cannot be forced) - container %s is using its referenced image %s", name, container, short)
		case last && inUse && running:
			return because(errdefs.ErrConflict, "conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short, container)
		case last && inUse && !o.Force && byName:
			return because(errdefs.ErrConflict, "conflict: unable to remove repository reference %q (must force) - container %s is using its referenced image %s", name, container, short)
		case last && inUse && !o.Force:
			return because(errdefs.ErrConflict, "conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short, container)
		}
		gone := func(d ocispec.Descriptor) bool {
			if d.Annotations[idAnnotation] != id {
				return false
			}
			return !byName || isName(d, name) || goesWith(d.Annotations[nameAnnotation], names, name)
		}
		var kept []ocispec.Descriptor
		for _, d := range ix.Manifests {
			if !gone(d) {
				kept = append(kept, d)
				continue
			}
			if n := d.Annotations[nameAnnotation]; n != "" {
				done = append(done, imagetypes.DeleteResponse{Untagged: familiar(n)})
			}
			if last && inUse {
				// Its files are a container's root: they stay, without a name, until that is gone.
				d.Annotations = maps.Clone(d.Annotations)
				delete(d.Annotations, nameAnnotation)
				if !slices.ContainsFunc(kept, func(e ocispec.Descriptor) bool { return e.Annotations[idAnnotation] == id }) {
					kept = append(kept, d)
				}
			}
		}
		if last && !inUse {
			removed := &ocispec.Index{Manifests: found}
			layers, chains, blobs := s.used(removed)
			stillLayers, stillChains, stillBlobs := s.used(&ocispec.Index{Manifests: kept})
			done = append(done, imagetypes.DeleteResponse{Deleted: id})
			// The name goes first: what is interrupted then leaves files without an image, and no image without files.
			ix.Manifests = kept
			if err := s.writeIndex(ix); err != nil {
				return err
			}
			for c := range chains {
				if !stillChains[c] {
					os.Remove(s.index(c))
				}
			}
			for _, l := range slices.Sorted(maps.Keys(layers)) {
				if !stillLayers[l] && os.Remove(s.layer(l)) == nil {
					done = append(done, imagetypes.DeleteResponse{Deleted: l.String()})
				}
			}
			for b := range blobs {
				if !stillBlobs[b] {
					os.Remove(s.blob(b))
				}
			}
		}
		ix.Manifests = kept
		return nil
	})
	return done, err
}

// goesWith says whether the full name n goes when a user removes name from an image with all those names: it is that
// name, or a digest of the same repository that has no tag left then.
func goesWith(n string, all []string, name string) bool {
	if n == "" {
		return false
	}
	removed, err := ParseReference(name)
	if err != nil || strings.HasPrefix(name, BuiltinPrefix) {
		return n == name
	}
	if n == removed.String() {
		return true
	}
	ref, err := ParseReference(n)
	if err != nil || ref.Digest() == "" || removed.Digest() != "" || ref.repository() != removed.repository() {
		return false
	}
	return !slices.ContainsFunc(all, func(other string) bool {
		o, err := ParseReference(other)
		return err == nil && o.Tag() != "" && o.repository() == removed.repository() && other != removed.String()
	})
}

// isName says whether name, as the user typed it, is the entry's name or digest, and not its id.
func isName(d ocispec.Descriptor, name string) bool {
	full := name
	if ref, err := ParseReference(name); err == nil && !strings.HasPrefix(name, BuiltinPrefix) {
		full = ref.String()
	}
	return d.Annotations[nameAnnotation] == full || d.Annotations[digestAnnotation] == full
}

// repositories counts the different ones among full names.
func repositories(names []string) int {
	seen := map[string]bool{}
	for _, n := range names {
		if ref, err := ParseReference(n); err == nil {
			seen[ref.repository()] = true
		} else {
			seen[n] = true
		}
	}
	return len(seen)
}
