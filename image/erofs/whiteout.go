package erofs

import (
	"fmt"
	"maps"
	"strings"

	"golang.org/x/sys/unix"
)

// Whiteouts, as the OCI image spec writes them in a tar.
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // other marks of aufs, which say nothing to us
)

// whiteout hides a name in a folder of the lower layers.
type whiteout struct {
	dir  *node
	name string
}

// markOpaque makes a folder hide all of what lower layers have in it.
func markOpaque(n *node) {
	n.xattrs = maps.Clone(n.xattrs)
	if n.xattrs == nil {
		n.xattrs = map[string]string{}
	}
	n.xattrs[opaqueName] = "y"
}

// whiteout notes what an entry of a whiteout's name says.
func (t *tarLayer) whiteout(dir *node, name string) error {
	switch {
	case name == whiteoutOpaque:
		markOpaque(dir)
	case strings.HasPrefix(name, whiteoutMeta):
	default:
		hidden := strings.TrimPrefix(name, whiteoutPrefix)
		if hidden == "" || hidden == "." || hidden == ".." {
			return fmt.Errorf("%w: whiteout of nothing", ErrLayer)
		}
		t.whiteouts = append(t.whiteouts, whiteout{dir, hidden})
	}
	return nil
}

// applyWhiteouts puts the marks into the folders at the end, for they are about lower layers only, wherever they stand
// in the tar: what the same layer has at the name stays, and a folder there hides the lower one's entries.
func (t *tarLayer) applyWhiteouts() error {
	for _, w := range t.whiteouts {
		switch c := w.dir.children[w.name]; {
		case c == nil:
			n := &node{mode: unix.S_IFCHR}
			if err := t.b.writeSmall(n, nil); err != nil {
				return err
			}
			w.dir.put(w.name, n)
		case c.isDir():
			markOpaque(c)
		}
	}
	return nil
}
