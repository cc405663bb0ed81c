package image

import (
	"context"
	"crypto/tls"
	"errors"
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

	"github.com/moss-run/moss/image/erofs"
)

// source is one registry that may have what is wanted: a mirror, or the registry itself.
type source struct {
	host string
	repo name.Repository
	from *remote.Puller // asks for the registry's permission once
}

// source prepares to speak with a registry about a repository.
func (s *Store) source(host, path string) (*source, error) {
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
		return nil, because(errdefs.ErrInvalidArgument, "%w", err)
	}
	t := remote.DefaultTransport.(*http.Transport).Clone()
	t.ResponseHeaderTimeout = s.cfg.timeout()
	t.TLSHandshakeTimeout = s.cfg.timeout()
	t.DialContext = (&net.Dialer{Timeout: s.cfg.timeout(), KeepAlive: 30 * time.Second}).DialContext
	if insecure {
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // asked for by name, or this machine
	}
	from, err := remote.NewPuller(
		remote.WithTransport(steady{t, s.cfg.timeout()}), remote.WithAuthFromKeychain(authn.DefaultKeychain),
		remote.WithUserAgent("moss"),
		remote.WithRetryBackoff(remote.Backoff{Duration: 200 * time.Millisecond, Factor: 3, Jitter: 0.1, Steps: 3}),
		// What a passing fault looks like, beside go-containerregistry's own list.
		remote.WithRetryStatusCodes(http.StatusRequestTimeout, http.StatusInternalServerError, http.StatusBadGateway,
			http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests),
		remote.WithRetryPredicate(again))
	return &source{host: host, repo: repo, from: from}, err
}

// again says whether a request that failed is worth another. One that took all the time that it may is not: three of
// them would be a long time to look at nothing.
func again(err error) bool {
	var ne net.Error
	if errors.As(err, &ne) && ne.Timeout() {
		return false
	}
	var te *transport.Error
	if errors.As(err, &te) {
		return te.Temporary()
	}
	return errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// explain turns what went wrong with a registry into what docker says, and what to do.
func explain(err error, ref Reference, host string) error {
	var said classed
	switch {
	case err == nil:
		return nil
	case errors.As(err, &said), errors.Is(err, errLocal), errors.Is(err, context.Canceled):
		return err // it says already what is wrong, and it is not the registry
	case errors.Is(err, errDigest), errors.Is(err, erofs.ErrLayer):
		return because(errdefs.ErrDataLoss, "registry %s: %w", host, err)
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
			return because(errdefs.ErrPermissionDenied, "pull access denied for %s: %s refused the credentials (status %d); the repository may not exist, or needs others: moss uses those of docker's config.json and its credential helpers", ref.repository(), host, te.StatusCode)
		case code(transport.ManifestUnknownErrorCode) || te.StatusCode == http.StatusNotFound && !code(transport.NameUnknownErrorCode) && te.Request != nil && strings.Contains(te.Request.URL.Path, "/manifests/"):
			return because(errdefs.ErrNotFound, "manifest for %s not found: manifest unknown: manifest unknown", ref.Familiar())
		case code(transport.NameUnknownErrorCode) || te.StatusCode == http.StatusNotFound:
			return because(errdefs.ErrNotFound, "pull access denied for %s, repository does not exist or may require credentials", ref.repository())
		case te.StatusCode == http.StatusTooManyRequests:
			return because(errdefs.ErrUnavailable, "registry %s limits the rate of pulls (status 429): wait, or give credentials or a mirror in config.toml", host)
		case te.StatusCode >= 500:
			return because(errdefs.ErrUnavailable, "registry %s failed with status %d %s, and again when it was asked again: try later", host, te.StatusCode, http.StatusText(te.StatusCode))
		}
		return because(errdefs.ErrUnavailable, "registry %s answered: %w", host, err)
	}
	var dns *net.DNSError
	var ne net.Error
	switch {
	case errors.As(err, &dns):
		return because(errdefs.ErrUnavailable, "registry %s: no such host: check the name and the network (%w)", host, err)
	case errors.As(err, &ne) && ne.Timeout(), errors.Is(err, context.DeadlineExceeded):
		return because(errdefs.ErrUnavailable, "registry %s does not answer in time: try again, or raise timeout in config.toml (%w)", host, err)
	case errors.Is(err, syscall.ECONNREFUSED):
		return because(errdefs.ErrUnavailable, "registry %s: connection refused: is it running, and is the port right? (%w)", host, err)
	case errors.Is(err, errStalled):
		return because(errdefs.ErrUnavailable, "registry %s: %w: try again, or raise timeout in config.toml", host, err)
	case strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return because(errdefs.ErrUnavailable, "registry %s speaks http and not https: if that is meant to be, say so in config.toml: [registries.%q] insecure = true", host, host)
	case strings.Contains(err.Error(), "x509:"):
		return because(errdefs.ErrUnavailable, "registry %s has a certificate that is not trusted (%w): add its authority to the system's, or set insecure = true for it in config.toml", host, err)
	}
	return because(errdefs.ErrUnavailable, "registry %s: %w", host, err)
}

// repository is the familiar name without tag or digest.
func (r Reference) repository() string {
	return strings.TrimSuffix(strings.TrimSuffix(r.Familiar(), "@"+r.Digest()), ":"+r.Tag())
}
