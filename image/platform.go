package image

import (
	"runtime"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// architectures are other spellings of Go's names.
var architectures = map[string]string{"x86_64": "amd64", "x86-64": "amd64", "aarch64": "arm64", "i386": "386", "armhf": "arm", "armel": "arm"}

// parsePlatform reads os[/arch[/variant]], or an architecture alone. Empty is this machine's.
func parsePlatform(s string) (ocispec.Platform, error) {
	here := ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH}
	if s == "" {
		return here, nil
	}
	parts := strings.Split(strings.ToLower(s), "/")
	if len(parts) > 3 || slices.Contains(parts, "") {
		return here, because(errdefs.ErrInvalidArgument, "invalid platform %q: it has the form os/architecture[/variant]", s)
	}
	arch := func(a string) string {
		if n, ok := architectures[a]; ok {
			return n
		}
		return a
	}
	if len(parts) == 1 {
		if parts[0] == "linux" {
			return here, nil
		}
		return ocispec.Platform{OS: "linux", Architecture: arch(parts[0])}, nil
	}
	p := ocispec.Platform{OS: parts[0], Architecture: arch(parts[1])}
	if len(parts) == 3 {
		p.Variant = parts[2]
	}
	if p.Architecture == "arm64" && p.Variant == "v8" {
		p.Variant = ""
	}
	return p, nil
}

// satisfies says whether what an image is for serves want. A variant that one of the two leaves open is no obstacle.
func satisfies(have, want ocispec.Platform) bool {
	if have.Architecture == "arm64" && have.Variant == "v8" {
		have.Variant = ""
	}
	// Some builders name no platform at all.
	if have.OS == "" && have.Architecture == "" {
		return true
	}
	return have.OS == want.OS && have.Architecture == want.Architecture &&
		(have.Variant == want.Variant || have.Variant == "" || want.Variant == "")
}

// choose finds the manifest for a platform in an index. An exact variant is better than an open one.
func choose(manifests []ocispec.Descriptor, want ocispec.Platform) (ocispec.Descriptor, bool) {
	var best *ocispec.Descriptor
	for i, d := range manifests {
		if d.Platform == nil || d.Platform.OS == "unknown" || !satisfies(*d.Platform, want) {
			continue
		}
		if best == nil || d.Platform.Variant == want.Variant && best.Platform.Variant != want.Variant {
			best = &manifests[i]
		}
	}
	if best == nil {
		return ocispec.Descriptor{}, false
	}
	return *best, true
}

func formatPlatform(p ocispec.Platform) string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}
