package image

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// source is one registry that may have what is wanted: a mirror, or the registry itself.
type source struct {
	host string
	repo name.Repository
	opts []remote.Option
}

// source prepares to speak with a registry about a repository.
func (s *Store) source(ctx context.Context, host, path string) (*source, error) {
	var opts []name.Option
	insecure := s.cfg.insecure(host)
	if insecure {
		opts = append(opts, name.Insecure)
	}
	at := host
	if at == "docker.io" {
		at = name.DefaultRegistry
	}
	repo, err := name.NewRepository(at+"/"+path, opts...)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errdefs.ErrInvalidArgument, err)
	}
	t := remote.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = s.cfg.timeout()
	t.TLSHandshakeTimeout = s.cfg.timeout()
	t.DialContext = (&net.Dialer{Timeout: s.cfg.timeout(), KeepAlive: 30 * time.Second}).DialContext
	if insecure {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // asked for by name, or this machine
	}
	return &source{host: host, repo: repo, opts: []remote.Option{
		remote.WithContext(ctx), remote.WithTransport(stallGuard{t, s.cfg.timeout()}), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("moss"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
		// What a passing fault looks like, beside go-containerregistry's own list.
		remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests),
	}}, nil
}

// stallGuard ends a response whose body brings nothing for too long.
type stallGuard struct {
	next http.RoundTripper
	most time.Duration
}

func (g stallGuard) RoundTrip(req *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(req.Context())
	resp, err := g.next.RoundTrip(req.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, err
	}
	b := &guardedBody{ReadCloser: resp.Body, cancel: cancel, most: g.most}
	b.timer = time.AfterFunc(g.most, func() { cancel(errStalled) })
	b.ctx = ctx
	resp.Body = b
	return resp, nil
}

var errStalled = errors.New("the registry stopped sending")

type guardedBody struct {
	io.ReadCloser
	ctx    context.Context
	cancel context.CancelCauseFunc
	timer  *time.Timer
	most   time.Duration
}

func (b *guardedBody) Read(p []byte) (int, error) {
	b.timer.Reset(b.most)
	n, err := b.ReadCloser.Read(p)
	if err != nil && err != io.EOF && errors.Is(context.Cause(b.ctx), errStalled) {
		err = errStalled
	}
	return n, err
}

func (b *guardedBody) Close() error {
	b.timer.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// explain turns what went wrong with a registry into what docker says, and what to do.
func explain(err error, ref Reference, host string) error {
	if err == nil {
		return nil
	}
	var te *transport.Error
	if errors.As(err, &te) {
		code := func(want transport.ErrorCode) bool {
			for _, d := range te.Errors {
				if d.Code == want {
					return true
				}
			}
			return false
		}
		switch {
		case te.StatusCode == http.StatusUnauthorized || te.StatusCode == http.StatusForbidden || code(transport.UnauthorizedErrorCode) || code(transport.DeniedErrorCode):
			return fmt.Errorf("%w: pull access denied for %s: %s refused the credentials (status %d); the repository may not exist, or needs others: moss uses those of docker's config.json and its credential helpers",
				errdefs.ErrPermissionDenied, ref.repository(), host, te.StatusCode)
		case code(transport.ManifestUnknownErrorCode) || te.StatusCode == http.StatusNotFound && !code(transport.NameUnknownErrorCode) && te.Request != nil && strings.Contains(te.Request.URL.Path, "/manifests/"):
			return fmt.Errorf("%w: manifest for %s not found: manifest unknown: manifest unknown", errdefs.ErrNotFound, ref.Familiar())
		case code(transport.NameUnknownErrorCode) || te.StatusCode == http.StatusNotFound:
			return fmt.Errorf("%w: pull access denied for %s, repository does not exist or may require credentials", errdefs.ErrNotFound, ref.repository())
		case te.StatusCode == http.StatusTooManyRequests:
			return fmt.Errorf("%w: registry %s limits the rate of pulls (status 429): wait, or give credentials or a mirror in config.toml", errdefs.ErrUnavailable, host)
		case te.StatusCode >= 500:
			return fmt.Errorf("%w: registry %s failed with status %d %s, and again when it was asked again: try later", errdefs.ErrUnavailable, host, te.StatusCode, http.StatusText(te.StatusCode))
		}
		return fmt.Errorf("%w: registry %s answered: %w", errdefs.ErrUnavailable, host, err)
	}
	var dns *net.DNSError
	var ne net.Error
	switch {
	case errors.As(err, &dns):
		return fmt.Errorf("%w: registry %s: no such host: check the name and the network (%w)", errdefs.ErrUnavailable, host, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w: registry %s: connection refused: is it running, and is the port right? (%w)", errdefs.ErrUnavailable, host, err)
	case errors.Is(err, errStalled):
		return fmt.Errorf("%w: registry %s: %w: try again, or raise timeout in config.toml", errdefs.ErrUnavailable, host, err)
	case errors.As(err, &ne) && ne.Timeout():
		return fmt.Errorf("%w: registry %s does not answer in time: try again, or raise timeout in config.toml (%w)", errdefs.ErrUnavailable, host, err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return fmt.Errorf("%w: registry %s speaks http and not https: if that is meant to be, say so in config.toml: [registries.%q] insecure = true", errdefs.ErrUnavailable, host, host)
	case strings.Contains(err.Error(), "x509:"):
		return fmt.Errorf("%w: registry %s has a certificate that is not trusted (%w): add its authority to the system's, or set insecure = true for it in config.toml", errdefs.ErrUnavailable, host, err)
	}
	return fmt.Errorf("registry %s: %w", host, err)
}

// repository is the familiar name without tag or digest.
func (r Reference) repository() string {
	return strings.TrimSuffix(strings.TrimSuffix(r.Familiar(), "@"+r.Digest()), ":"+r.Tag())
}
