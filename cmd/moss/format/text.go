package format

import (
	"strings"
	"time"

	"github.com/docker/go-units"
)

// ShortID is the first twelve digits of an id, without the name of the digest's algorithm.
func ShortID(id string) string {
	if _, hex, ok := strings.Cut(id, ":"); ok {
		id = hex
	}
	if len(id) > 12 {
		id = id[:12]
	}
	return id
}

// ellipsis cuts s to width characters, the last of them "…".
func ellipsis(s string, width int) string {
	r := []rune(s)
	if len(r) <= width {
		return s
	}
	return string(r[:width-1]) + "…"
}

// size is docker's short form: "4.49MB".
func size(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }

// age is how long ago something was: "5 minutes ago".
func age(unix int64, now time.Time) string {
	return units.HumanDuration(now.Sub(time.Unix(unix, 0))) + " ago"
}

// FamiliarName takes away what docker leaves unsaid: docker.io/library/alpine:3 is alpine:3.
func FamiliarName(ref string) string {
	ref = strings.TrimPrefix(ref, "index.")
	if rest, ok := strings.CutPrefix(ref, "docker.io/"); ok {
		return strings.TrimPrefix(rest, "library/")
	}
	return ref
}

// splitReference takes a reference apart: name, tag, digest. A colon before the last slash belongs to a port.
func splitReference(ref string) (name, tag, digest string) {
	name, digest, _ = strings.Cut(ref, "@")
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		name, tag = name[:i], name[i+1:]
	}
	return name, tag, digest
}
