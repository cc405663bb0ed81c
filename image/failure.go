package image

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
)

// errLocal is a failure of this machine, and not of a registry.
var errLocal = errors.New("cannot keep the image")

// errDigest says that content is not what its digest promises.
var errDigest = errors.New("digest mismatch")

// errRemoved says that another process removed a layer while a pull counted on it.
var errRemoved = because(errdefs.ErrUnavailable, "a layer was removed in the middle of the pull: pull again")

// classed is an error of a class, one of errdefs, which its text does not name: what people read is docker's phrase.
type classed struct {
	error
	class error
}

func (c classed) Unwrap() []error { return []error{c.class, c.error} }

// because makes an error of a class.
func because(class error, format string, a ...any) error {
	return classed{fmt.Errorf(format, a...), class}
}
