package image

import (
	"errors"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

func TestReferencesExpandAsDockersDo(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for in, want := range map[string][2]string{
		"debian":                             {"docker.io/library/debian:latest", "debian:latest"},
		"debian:12":                          {"docker.io/library/debian:12", "debian:12"},
		"me/app":                             {"docker.io/me/app:latest", "me/app:latest"},
		"index.docker.io/library/debian":     {"docker.io/library/debian:latest", "debian:latest"},
		"localhost/app":                      {"localhost/app:latest", "localhost/app:latest"},
		"localhost:5000/app":                 {"localhost:5000/app:latest", "localhost:5000/app:latest"},
		"r.example/a/b/c:t":                  {"r.example/a/b/c:t", "r.example/a/b/c:t"},
		"HOST/app":                           {"HOST/app:latest", "HOST/app:latest"},
		"[::1]:5000/app":                     {"[::1]:5000/app:latest", "[::1]:5000/app:latest"},
		"debian@" + digest:                   {"docker.io/library/debian@" + digest, "debian@" + digest},
		"debian:12@" + digest:                {"docker.io/library/debian@" + digest, "debian@" + digest},
		"debian:" + strings.Repeat("t", 128): {"docker.io/library/debian:" + strings.Repeat("t", 128), "debian:" + strings.Repeat("t", 128)},
	} {
		r, err := ParseReference(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if r.String() != want[0] || r.Familiar() != want[1] {
			t.Errorf("%s is %s, %s", in, r, r.Familiar())
		}
	}
	for _, in := range []string{"", "Debian", "a/Debian", "x:", ":x", "x@sha256:1", "a//b", "-a", "x y", strings.Repeat("a", 64), "x:" + strings.Repeat("t", 129), "../x", "http://x/y", strings.Repeat("a/", 200)} {
		if r, err := ParseReference(in); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q is %v: %v", in, r, err)
		}
	}
}

func FuzzParseReference(f *testing.F) {
	for _, s := range []string{"debian", "a/b:c@sha256:" + strings.Repeat("a", 64), "[::1]:5/x", "builtin:hello", "A/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		for _, again := range []string{r.String(), r.Familiar()} {
			if b, err := ParseReference(again); err != nil || b.String() != r.String() {
				t.Errorf("%q is %q, and that is %v: %v", s, again, b, err)
			}
		}
		if (r.Tag() == "") == (r.Digest() == "") {
			t.Errorf("%q has tag %q and digest %q", s, r.Tag(), r.Digest())
		}
		if strings.HasPrefix(r.Path(), "/") || strings.Contains(r.Path(), "..") {
			t.Errorf("%q has path %q", s, r.Path())
		}
	})
}

func TestPlatforms(t *testing.T) {
	for in, want := range map[string]string{"linux/x86_64": "linux/amd64", "linux/aarch64": "linux/arm64", "arm64": "linux/arm64", "linux/arm64/v8": "linux/arm64", "linux/arm/v7": "linux/arm/v7", "Linux/AMD64": "linux/amd64"} {
		p, err := parsePlatform(in)
		if err != nil || formatPlatform(p) != want {
			t.Errorf("%s is %s: %v", in, formatPlatform(p), err)
		}
	}
	for _, in := range []string{"/", "linux/", "a/b/c/d"} {
		if _, err := parsePlatform(in); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
