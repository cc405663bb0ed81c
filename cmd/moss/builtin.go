package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"

	"github.com/moss-run/moss/image"
	"github.com/moss-run/moss/userns/inside"
)

// installBuiltin makes an image of what the binary carries. There is one: builtin:hello, whose program reports what it
// sees of the container that was made for it.
func installBuiltin(ctx context.Context, store *image.Store, name string) error {
	if name != image.BuiltinPrefix+"hello" {
		return fmt.Errorf("%w: no such image in this binary: %s; there is builtin:hello", errdefs.ErrNotFound, name)
	}
	program, err := helloProgram()
	if err != nil {
		return err
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, f := range []struct {
		name, text string
		mode       int64
	}{
		{"hello", string(program), 0o755},
		{"etc/passwd", "root:x:0:0:root:/:/hello\n", 0o644},
		{"etc/group", "root:x:0:\n", 0o644},
	} {
		// The same bytes make the same image: no time of now.
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: f.mode, Size: int64(len(f.text)), ModTime: time.Unix(0, 0), Format: tar.FormatUSTAR}); err != nil {
			return err
		}
		if _, err := w.Write([]byte(f.text)); err != nil {
			return err
		}
	}
	if err := w.Close(); err != nil {
		return err
	}
	var cfg dockerspec.DockerOCIImageConfig
	cfg.Entrypoint = []string{"/hello"}
	_, err = store.InstallBuiltin(ctx, name, b.Bytes(), cfg)
	return err
}

// hostNamespaces is what builtin:hello compares its own namespaces with: only the host can tell its names.
func hostNamespaces() string { return inside.HostNamespaces + "=" + inside.Namespaces() }
