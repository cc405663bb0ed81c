package lifecycle

import "fmt"

// failed is an error of a class (an errdefs sentinel), for programs, whose text is for people and does not name it.
type failed struct {
	class error
	err   error
}

func (f *failed) Error() string   { return f.err.Error() }
func (f *failed) Unwrap() []error { return []error{f.class, f.err} }

func failure(class error, format string, args ...any) error {
	return &failed{class: class, err: fmt.Errorf(format, args...)}
}
