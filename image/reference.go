package image

import (
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
)

// BuiltinPrefix begins the names of images that are in the moss binary itself.
const BuiltinPrefix = "builtin:"

// Reference is the full name of an image: docker.io/library/debian:latest, or with a digest in the tag's place.
type Reference struct{ named reference.Named }

// fullID says whether s is an image's id in full.
func fullID(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}

// ParseReference expands a name as docker does: debian is docker.io/library/debian:latest. Of a tag and a digest the
// digest counts. A bare 64-digit id is no name. Errors wrap errdefs.ErrInvalidArgument.
func ParseReference(s string) (Reference, error) {
	if fullID(s) {
		return Reference{}, because(errdefs.ErrInvalidArgument, "invalid repository name (%s), cannot specify 64-byte hexadecimal strings", s)
	}
	named, err := reference.ParseNormalizedNamed(s)
	if err != nil {
		return Reference{}, because(errdefs.ErrInvalidArgument, "%w", err)
	}
	if d, ok := named.(reference.Canonical); ok {
		if named, err = reference.WithDigest(reference.TrimNamed(named), d.Digest()); err != nil {
			return Reference{}, because(errdefs.ErrInvalidArgument, "%w", err)
		}
	}
	return Reference{reference.TagNameOnly(named)}, nil
}

// String is the full name.
func (r Reference) String() string { return r.named.String() }

// Familiar is the name as people write it, with its tag or digest.
func (r Reference) Familiar() string { return reference.FamiliarString(r.named) }

// Host is the registry: docker.io, or host:port.
func (r Reference) Host() string { return reference.Domain(r.named) }

// Path is the repository within the registry: library/debian.
func (r Reference) Path() string { return reference.Path(r.named) }

// Tag is empty when there is a digest.
func (r Reference) Tag() string {
	if t, ok := r.named.(reference.Tagged); ok {
		return t.Tag()
	}
	return ""
}

// Digest is empty when there is a tag.
func (r Reference) Digest() string {
	if d, ok := r.named.(reference.Digested); ok {
		return d.Digest().String()
	}
	return ""
}

// withDigest is the same repository by digest.
func (r Reference) withDigest(digest string) string {
	return reference.TrimNamed(r.named).String() + "@" + digest
}

// HasTagOrDigest says whether a name as the user typed it says which image of the repository is meant.
func HasTagOrDigest(s string) bool {
	named, err := reference.ParseNormalizedNamed(s)
	return err != nil || !reference.IsNameOnly(named)
}

// familiar shortens a full name for people.
func familiar(full string) string {
	if strings.HasPrefix(full, BuiltinPrefix) {
		return full
	}
	if named, err := reference.ParseNormalizedNamed(full); err == nil {
		return reference.FamiliarString(named)
	}
	return full
}
