package erofs

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// opaqueName marks a folder of a layer that hides all of what lower layers have in it.
const opaqueName = "trusted.overlay.opaque"

// errXattr is an attribute that EROFS cannot hold.
var errXattr = errors.New("extended attribute cannot be kept")

// splitXattr gives an attribute's name space as EROFS numbers it, and the rest of the name. 0 is what EROFS cannot hold:
// all but user, trusted, security and the two ACLs.
func splitXattr(full string) (index byte, name string) {
	for _, p := range xattrPrefixes {
		rest, ok := strings.CutPrefix(full, p.name)
		if ok && p.exact == (rest == "") {
			return p.index, rest
		}
	}
	return 0, ""
}

func knownXattr(full string) bool {
	index, _ := splitXattr(full)
	return index != 0
}

// encodeXattrs is the text behind an inode, and EROFS's count of it.
func encodeXattrs(x map[string]string) ([]byte, uint16, error) {
	if len(x) == 0 {
		return nil, 0, nil
	}
	b := make([]byte, xattrHeader)
	names := make([]string, 0, len(x))
	for n := range x {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, full := range names {
		index, name := splitXattr(full)
		value := x[full]
		if index == 0 || len(name) > 255 || len(value) > 65535 {
			return nil, 0, fmt.Errorf("%w: %s (%d bytes)", errXattr, quote(full), len(value))
		}
		b = append(b, byte(len(name)), index, byte(len(value)), byte(len(value)>>8))
		b = append(b, name...)
		b = append(b, value...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
	}
	words := (len(b)-xattrHeader)/4 + 1
	if words > 65535 {
		return nil, 0, fmt.Errorf("%w: %d bytes of them on one file", errXattr, len(b))
	}
	return b, uint16(words), nil
}

// eachXattr goes through the attributes behind an inode. name is without its prefix, of which index tells.
func eachXattr(b []byte, f func(index byte, name, value []byte) bool) error {
	if len(b) < xattrHeader {
		return nil
	}
	if b[4] != 0 {
		return fmt.Errorf("%w: shared extended attributes", ErrFormat)
	}
	for b = b[xattrHeader:]; len(b) >= 4; {
		nameLen, index, valueLen := int(b[0]), b[1], int(le.Uint16(b[2:]))
		end := 4 + nameLen + valueLen
		if end > len(b) {
			return fmt.Errorf("%w: an extended attribute runs over its end", ErrFormat)
		}
		if index != 0 && !f(index, b[4:4+nameLen], b[4+nameLen:end]) {
			return nil
		}
		b = b[min(len(b), int(align(int64(end), 4))):]
	}
	return nil
}

func prefixOf(index byte) string {
	for _, p := range xattrPrefixes {
		if p.index == index {
			return p.name
		}
	}
	return ""
}
