package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// steady is a transport that does not wait for ever, and does not give up at the first trouble: a body that brings
// nothing for too long has failed, and a blob whose body fails is asked for again from where it broke off. It lies below
// authentication and redirects, so what it repeats is the request that was answered.
type steady struct {
	next http.RoundTripper
	most time.Duration // of silence
}

// resumes is how often a body may break off without having brought anything.
const resumes = 3

var errStalled = errors.New("the registry stopped sending")

func (t steady) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, body, err := t.ask(req)
	if err != nil {
		return nil, err
	}
	switch {
	case strings.Contains(req.URL.Path, "/manifests/"):
		resp.Body = &limited{body, maxManifest}
	case req.Method == http.MethodGet && resp.StatusCode == http.StatusOK && !resp.Uncompressed && resp.ContentLength > maxManifest:
		resp.Body = &resuming{t: t, req: req, total: resp.ContentLength, body: body}
	default:
		resp.Body = body
	}
	return resp, nil
}

// ask makes one request, with a context of its own that ends with the body.
func (t steady) ask(req *http.Request) (*http.Response, *guarded, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, nil, err
	}
	b := &guarded{ReadCloser: resp.Body, ctx: ctx, cancel: cancel, most: t.most}
	b.timer = time.AfterFunc(t.most, func() { cancel(errStalled) })
	b.timer.Stop()
	return resp, b, nil
}

// guarded is a body whose single read takes no longer than most. Time that the reader spends elsewhere does not count.
type guarded struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	most   time.Duration
}

func (b *guarded) Read(p []byte) (int, error) {
	b.timer.Reset(b.most)
	n, err := b.ReadCloser.Read(p)
	b.timer.Stop()
	if err != nil && err != io.EOF && context.Cause(b.ctx) == errStalled {
		err = errStalled
	}
	return n, err
}

func (b *guarded) Close() error {
	b.timer.Stop()
	// The request ends first: a read that is under way in another goroutine then returns.
	b.cancel(nil)
	return b.ReadCloser.Close()
}

// limited refuses a body that is longer than anything that should be read into memory.
type limited struct {
	io.ReadCloser
	left int64
}

func (l *limited) Read(p []byte) (int, error) {
	n, err := l.ReadCloser.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, fmt.Errorf("a manifest of more than the %d bytes that one may have", maxManifest)
	}
	return n, err
}

// resuming is the body of a large blob.
type resuming struct {
	t     steady
	req   *http.Request
	total int64
	at    int64
	body  *guarded
	tries int
}

func (r *resuming) Read(p []byte) (int, error) {
	n, err := r.body.Read(p)
	if r.at += int64(n); n > 0 {
		r.tries = 0
	}
	if err == nil || err == io.EOF || r.req.Context().Err() != nil {
		return n, err
	}
	for ; r.tries < resumes; r.tries++ {
		select {
		case <-time.After(time.Duration(1+r.tries*r.tries) * 200 * time.Millisecond):
		case <-r.req.Context().Done():
			return n, err
		}
		if r.reopen() {
			r.tries++ // until it brings something
			return n, nil
		}
	}
	return n, err
}

// reopen asks for what is still missing.
func (r *resuming) reopen() bool {
	req := r.req.Clone(r.req.Context())
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-", r.at))
	resp, body, err := r.t.ask(req)
	if err != nil {
		return false
	}
	skip := r.at // a server that knows no ranges sends all of it again
	if resp.StatusCode == http.StatusPartialContent && strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", r.at)) {
		skip = 0
	} else if resp.StatusCode != http.StatusOK || resp.ContentLength != r.total {
		body.Close()
		return false
	}
	if _, err := io.CopyN(io.Discard, body, skip); err != nil {
		body.Close()
		return false
	}
	r.body.Close()
	r.body = body
	return true
}

func (r *resuming) Close() error { return r.body.Close() }
