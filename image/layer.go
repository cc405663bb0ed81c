package image

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/image/erofs"
)

// layerTries is how often a layer is asked for when its stream breaks off.
const layerTries = 3

// fetchLayer puts one layer into the store, unless it is there. Of several processes that want it, one fetches it and
// the others wait.
func (s *Store) fetchLayer(ctx context.Context, src *source, ref Reference, d ocispec.Descriptor, diffID digest.Digest, o PullOptions) error {
	id := d.Digest.Encoded()[:12]
	has := func() bool {
		_, err := os.Stat(s.layer(diffID))
		return err == nil
	}
	if has() {
		o.Progress.Layer(id, "Already exists", 0, 0)
		return nil
	}
	o.Progress.Layer(id, "Pulling fs layer", 0, 0)
	lock, err := lockFile(ctx, s.path("tmp", diffID.Encoded()+".lock"))
	if err != nil {
		return err
	}
	defer lock.Close()
	defer os.Remove(lock.Name())
	if has() {
		o.Progress.Layer(id, "Already exists", 0, 0)
		return nil
	}
	began := time.Now()
	for try := 1; ; try++ {
		err = s.tryLayer(ctx, src, d, diffID, id, o)
		if err == nil || ctx.Err() != nil || try == layerTries || !passing(err) {
			break
		}
		o.Progress.Layer(id, "Retrying", 0, 0)
		select {
		case <-time.After(time.Duration(try) * 300 * time.Millisecond):
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w", id, explain(err, ref, src.host))
	}
	o.Progress.Layer(id, "Pull complete", d.Size, d.Size)
	o.Trace("pull layer", fmt.Sprintf("%s %d bytes", id, d.Size), time.Since(began))
	return nil
}

// passing says whether a second try may go better.
func passing(err error) bool {
	return !errors.Is(err, errDigest) && !errors.Is(err, errLocal) && !errors.Is(err, erofs.ErrLayer) && !errors.Is(err, errdefs.ErrInvalidArgument) ||
		errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, errDigest)
}

// errDigest says that content is not what its digest promises.
var errDigest = errors.New("digest mismatch")

// tryLayer is one pass: fetch, hash, inflate, hash, write; and at the end the layer gets its name, if all is right.
func (s *Store) tryLayer(ctx context.Context, src *source, d ocispec.Descriptor, diffID digest.Digest, id string, o PullOptions) error {
	l, err := remote.Layer(src.repo.Digest(d.Digest.String()), src.opts...)
	if err != nil {
		return err
	}
	body, err := l.Compressed()
	if err != nil {
		return err
	}
	defer body.Close()
	stop := context.AfterFunc(ctx, func() { body.Close() })
	defer stop()
	counted := &counter{r: body, f: func(n int64) { o.Progress.Layer(id, "Downloading", n, d.Size) }}
	err = s.storeLayer(counted, d, diffID)
	if err == nil {
		o.Progress.Layer(id, "Download complete", d.Size, d.Size)
	}
	return err
}

// counter tells how far a stream has come, not more often than somebody can see.
type counter struct {
	r    io.Reader
	n    int64
	last time.Time
	f    func(n int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if now := time.Now(); now.Sub(c.last) > 100*time.Millisecond {
		c.last = now
		c.f(c.n)
	}
	return n, err
}

// storeLayer writes the layer file for a compressed stream that claims to be d, and holds the layer diffID. d.Size 0
// with an empty digest is a stream of which nothing is claimed.
func (s *Store) storeLayer(body io.Reader, d ocispec.Descriptor, diffID digest.Digest) error {
	f, err := os.CreateTemp(s.path("tmp"), "layer-")
	if err != nil {
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // says to others that it is not left over

	outer := &hashed{r: body, h: sha256.New(), most: d.Size}
	wire := readAhead(outer)
	plain, err := inflate(bufio.NewReaderSize(wire, copyBuffer))
	if err != nil {
		if c, ok := body.(io.Closer); ok {
			c.Close()
		}
		return orCut(err, outer, d)
	}
	unpacked := readAhead(plain)
	inner := &hashed{r: unpacked, h: sha256.New(), most: -1}
	_, ferr := erofs.FromTar(f, inner)
	if ferr == nil {
		_, ferr = io.Copy(io.Discard, inner)
	}
	if ferr == nil {
		_, ferr = io.Copy(io.Discard, wire) // what is behind the compressed stream belongs to the digest
	}
	if ferr != nil {
		return orCut(diskError(ferr), outer, d)
	}
	if d.Digest != "" && (outer.sum() != d.Digest || outer.n != d.Size) {
		return fmt.Errorf("%w: the registry sent %d bytes with digest %s, and it should be %d with %s; nothing of it is kept", errDigest, outer.n, outer.sum(), d.Size, d.Digest)
	}
	if got := inner.sum(); got != diffID {
		return fmt.Errorf("%w: the layer holds %s, and the image's configuration says %s; nothing of it is kept", errDigest, got, diffID)
	}
	if err := os.Rename(f.Name(), s.layer(diffID)); err != nil {
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	return nil
}

// orCut tells a stream that broke off from one that is bad in itself: only the first is worth another try.
func orCut(err error, outer *hashed, d ocispec.Descriptor) error {
	// go-containerregistry verifies too, and has no type for what it finds.
	if outer.err != nil && strings.Contains(outer.err.Error(), "error verifying") {
		return fmt.Errorf("%w: what the registry sent is not what the manifest says (%w); nothing of it is kept", errDigest, outer.err)
	}
	if errors.Is(outer.err, errDigest) {
		return fmt.Errorf("%w; nothing of it is kept", outer.err)
	}
	if outer.err != nil && outer.err != io.EOF {
		return fmt.Errorf("the connection broke off after %d of %d bytes: %w", outer.n, d.Size, outer.err)
	}
	if errors.Is(err, errLocal) {
		return err
	}
	if outer.err == io.EOF && d.Digest != "" && outer.n < d.Size {
		return fmt.Errorf("the connection broke off after %d of %d bytes: %w", outer.n, d.Size, io.ErrUnexpectedEOF)
	}
	if outer.err == io.EOF && d.Digest != "" && outer.sum() != d.Digest {
		return fmt.Errorf("%w: the registry sent something with digest %s for %s; nothing of it is kept", errDigest, outer.sum(), d.Digest)
	}
	return err
}

// diskError marks what the store's file system refused.
func diskError(err error) error {
	var pe *os.PathError
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w; free some space, or set MOSS_ROOT to another file system. Nothing of the layer is kept", errLocal, err)
	case errors.As(err, &pe):
		return fmt.Errorf("%w: %w", errLocal, err)
	}
	return err
}

// hashed hashes and counts what is read through it. It refuses to read more than most, unless that is negative.
type hashed struct {
	r    io.Reader
	h    hash.Hash
	n    int64
	most int64
	err  error
}

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	if h.n += int64(n); h.most > 0 && h.n > h.most && err == nil {
		err = fmt.Errorf("%w: more than the %d bytes that the manifest says", errDigest, h.most)
	}
	if err != nil {
		h.err = err
	}
	return n, err
}

func (h *hashed) sum() digest.Digest {
	return digest.Digest("sha256:" + hex.EncodeToString(h.h.Sum(nil)))
}

// inflate undoes a layer's compression. It looks at the stream itself: media types are wrong too often.
func inflate(r *bufio.Reader) (io.Reader, error) {
	head, err := r.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b}):
		return gzip.NewReader(r)
	case bytes.HasPrefix(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) == 4 && head[0]>>4 == 5 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(r, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(512<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	case bytes.HasPrefix(head, []byte("BZh")):
		return bzip2.NewReader(r), nil
	}
	return r, nil
}

// blob fetches a small blob whole, and verifies it.
func (src *source) blob(d ocispec.Descriptor, most int64) ([]byte, error) {
	l, err := remote.Layer(src.repo.Digest(d.Digest.String()), src.opts...)
	if err != nil {
		return nil, err
	}
	body, err := l.Compressed()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(io.LimitReader(body, most+1))
	if err != nil {
		return nil, err
	}
	if got := digest.FromBytes(b); got != d.Digest {
		return nil, fmt.Errorf("%w: the registry sent %s for %s", errDigest, got, d.Digest)
	}
	return b, nil
}
