package netproc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/rootless-containers/rootlesskit/v3/pkg/port"
	builtin "github.com/rootless-containers/rootlesskit/v3/pkg/port/builtin/parent"

	"github.com/moss-run/moss/netns/netproto"
)

// causedError is an error whose cause the monitor is told.
type causedError struct {
	cause netproto.Cause
	text  string
}

func (e *causedError) Error() string { return e.text }

// published are the ports of a container: the host's side of rootlesskit's builtin driver, with connector for the other.
// Its sockets lie in the working folder, which is the container's own: their names are relative, and so never too long.
type published struct {
	parent port.ParentDriver
	bound  []netproto.Port
}

// publish listens on all ports, before the container is there.
func publish(ports []netproto.Port) (*published, error) {
	p := &published{}
	if len(ports) == 0 {
		return p, nil
	}
	var err error
	if p.parent, err = builtin.NewDriver(os.Stderr, ".", false, ""); err != nil {
		return nil, fmt.Errorf("port driver: %w", err)
	}
	for _, want := range ports {
		if err := p.add(want); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// add listens on one port. One that was found free may be somebody's a moment later: then another is looked for.
func (p *published) add(want netproto.Port) error {
	const tries = 10
	for try := 1; ; try++ {
		bind := want
		if want.HostPort == 0 {
			var err error
			if bind.HostPort, err = freePort(want); err != nil {
				return err
			}
		}
		_, err := p.parent.AddPort(context.Background(), port.Spec{
			Proto: bind.Proto, ParentIP: bind.HostIP, ParentPort: int(bind.HostPort), ChildPort: int(bind.ContainerPort)})
		if err == nil {
			p.bound = append(p.bound, bind)
			return nil
		}
		err = portError(bind, err)
		var c *causedError
		if again := errors.As(err, &c) && c.cause == netproto.InUse && want.HostPort == 0; !again || try == tries {
			return err
		}
	}
}

// freePort finds a port that nobody has at this moment.
func freePort(p netproto.Port) (uint16, error) {
	at := net.JoinHostPort(p.HostIP, "0")
	if p.Proto == "udp" {
		c, err := net.ListenPacket("udp", at)
		if err != nil {
			return 0, portError(p, err)
		}
		defer c.Close()
		return uint16(c.LocalAddr().(*net.UDPAddr).Port), nil
	}
	l, err := net.Listen("tcp", at)
	if err != nil {
		return 0, portError(p, err)
	}
	defer l.Close()
	return uint16(l.Addr().(*net.TCPAddr).Port), nil
}

func portError(p netproto.Port, err error) error {
	host := p.HostIP
	if host == "" {
		host = "0.0.0.0"
	}
	at := net.JoinHostPort(host, strconv.Itoa(int(p.HostPort)))
	switch {
	case errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "address already in use") || strings.Contains(err.Error(), "conflict"):
		return &causedError{netproto.InUse, fmt.Sprintf("Bind for %s failed: port is already allocated", at)}
	case errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "permission denied"):
		return &causedError{netproto.Denied, fmt.Sprintf("Bind for %s failed: without root, ports below %s cannot be bound (net.ipv4.ip_unprivileged_port_start); choose a higher one, or ask an administrator for: sysctl -w net.ipv4.ip_unprivileged_port_start=%d",
			at, lowest(), p.HostPort)}
	case errors.Is(err, syscall.EADDRNOTAVAIL) || strings.Contains(err.Error(), "cannot assign requested address"):
		return &causedError{netproto.Invalid, fmt.Sprintf("Bind for %s failed: this machine does not have the address", at)}
	}
	return fmt.Errorf("Bind for %s failed: %w", at, err)
}

// run connects the ports with the container's namespace.
func (p *published) run(c *connector) error {
	if p.parent == nil {
		return nil
	}
	quit := make(chan struct{}) // never closed: the process ends instead
	failed := make(chan error, 2)
	go func() { failed <- c.serve(p.parent.OpaqueForChild()) }()
	ready := make(chan struct{}, 1)
	go func() { failed <- p.parent.RunParentDriver(ready, quit, nil) }()
	select {
	case <-ready:
		return nil
	case err := <-failed:
		return fmt.Errorf("port driver: %w", err)
	}
}
