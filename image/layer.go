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
	"syscall"
	"time"

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
	if s.has(diffID) {
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
	if s.has(diffID) {
		o.Progress.Layer(id, "Already exists", 0, 0)
		return nil
	}
	began := time.Now()
	for try := 1; ; try++ {
		err = s.tryLayer(ctx, src, d, diffID, id, o)
		if err == nil || ctx.Err() != nil || try == layerTries || !errors.Is(err, errCut) {
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

// errCut is a stream that broke off: the one fault that another try may mend.
var errCut = errors.New("the connection broke off")

// has says whether a layer is there and whole. A machine that lost its power may have left a file that is too short.
func (s *Store) has(diffID digest.Digest) bool {
	l, err := erofs.OpenLayer(s.layer(diffID))
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// tryLayer fetches a layer once.
func (s *Store) tryLayer(ctx context.Context, src *source, d ocispec.Descriptor, diffID digest.Digest, id string, o PullOptions) error {
	body, err := src.open(ctx, d)
	if err != nil {
		return err
	}
	counted := &counter{ReadCloser: body, f: func(n int64) { o.Progress.Layer(id, "Downloading", n, d.Size) }}
	err = s.storeLayer(counted, d, diffID)
	if err == nil {
		o.Progress.Layer(id, "Download complete", d.Size, d.Size)
	}
	return err
}

// counter tells how far a stream has come, not more often than somebody can see.
type counter struct {
	io.ReadCloser
	n    int64
	last time.Time
	f    func(n int64)
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.n += int64(n)
	if now := time.Now(); now.Sub(c.last) > 100*time.Millisecond {
		c.last = now
		c.f(c.n)
	}
	return n, err
}

// storeLayer is one pass: take what body brings, hash, inflate, hash, write; and at the end the layer gets its name, if
// body was what d says and held what diffID says. It closes body.
func (s *Store) storeLayer(body io.ReadCloser, d ocispec.Descriptor, diffID digest.Digest) error {
	outer := &hashed{r: body, h: sha256.New(), most: d.Size}
	wire := readAhead(outer)
	finish := func() {
		wire.Stop()
		body.Close()
		wire.Close()
	}
	defer finish()

	f, err := os.CreateTemp(s.path("tmp"), "layer-")
	if err != nil {
		return diskError(err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	_ = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) // says to others that it is not left over

	got, err := unpack(f, wire)
	if errors.Is(err, errLocal) {
		return err
	}
	// Whatever is wrong with the layer, the digest of the whole tells whether the registry or the image is to blame. And
	// what lies behind the compressed stream belongs to the digest too.
	_, _ = io.Copy(io.Discard, wire)
	finish()
	switch {
	case errors.Is(wire.err, errDigest):
		return wire.err
	case wire.err != nil && wire.err != io.EOF && outer.n < d.Size:
		return fmt.Errorf("%w after %d of %d bytes: %w", errCut, outer.n, d.Size, wire.err)
	case wire.err == io.EOF && outer.n < d.Size:
		return fmt.Errorf("%w after %d of %d bytes", errCut, outer.n, d.Size)
	case outer.sum() != d.Digest:
		return fmt.Errorf("%w: it sent %d bytes with digest %s, and they should have %s; nothing of it is kept", errDigest, outer.n, outer.sum(), d.Digest)
	case err != nil:
		return fmt.Errorf("%w; nothing of it is kept", err)
	case got != diffID:
		return fmt.Errorf("%w: the layer holds %s, and the image's configuration says %s; nothing of it is kept", errDigest, got, diffID)
	}
	if err := os.Rename(f.Name(), s.layer(diffID)); err != nil {
		return diskError(err)
	}
	return nil
}

// unpack writes the layer file for a compressed tar, and gives the digest of the tar.
func unpack(f *os.File, r io.Reader) (digest.Digest, error) {
	plain, err := inflate(bufio.NewReaderSize(r, copyBuffer))
	if err != nil {
		return "", fmt.Errorf("%w: %w", erofs.ErrLayer, err)
	}
	defer plain.Close()
	unpacked := readAhead(plain)
	defer unpacked.Close()
	inner := &hashed{r: unpacked, h: sha256.New(), most: -1}
	if _, err := erofs.FromTar(f, inner); err != nil {
		return "", diskError(err)
	}
	return inner.sum(), nil
}

// diskError marks what the store's file system refused.
func diskError(err error) error {
	var pe *os.PathError
	var le *os.LinkError
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fmt.Errorf("%w: %w: free some space, or set MOSS_ROOT to another file system; nothing of it is kept", errLocal, err)
	case errors.As(err, &pe), errors.As(err, &le):
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
}

func (h *hashed) Read(p []byte) (int, error) {
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	if h.n += int64(n); h.most >= 0 && h.n > h.most {
		err = fmt.Errorf("%w: it sent more than the %d bytes that the manifest says; nothing of it is kept", errDigest, h.most)
	}
	return n, err
}

func (h *hashed) sum() digest.Digest {
	return digest.Digest("sha256:" + hex.EncodeToString(h.h.Sum(nil)))
}

// inflate undoes a layer's compression. It looks at the stream itself: media types are wrong too often.
func inflate(r *bufio.Reader) (io.ReadCloser, error) {
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
		return io.NopCloser(bzip2.NewReader(r)), nil
	}
	return io.NopCloser(r), nil
}

// open asks for a blob. The caller closes it.
func (src *source) open(ctx context.Context, d ocispec.Descriptor) (io.ReadCloser, error) {
	l, err := src.from.Layer(ctx, src.repo.Digest(d.Digest.String()))
	if err != nil {
		return nil, err
	}
	return l.Compressed()
}

// blob fetches a small blob whole, and verifies it.
func (src *source) blob(ctx context.Context, d ocispec.Descriptor, most int64) ([]byte, error) {
	body, err := src.open(ctx, d)
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
