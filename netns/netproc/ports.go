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
	"github.com/rootless-containers/rootlesskit/v3/pkg/port/builtin"

	"github.com/moss-run/moss/netns/netproto"
)

// errInUse is a port that another process has.
var errInUse = errors.New("port is already allocated")

// published are the ports of a container: rootlesskit's builtin driver, both sides of it in this process. Its sockets
// lie in the working folder, which is the container's own: their names are relative, and so never too long.
type published struct {
	parent port.ParentDriver
	bound  []netproto.Port
}

// publish listens on all ports, before the container is there.
func publish(ports []netproto.Port, ip string) (*published, error) {
	p := &published{}
	if len(ports) == 0 {
		return p, nil
	}
	var err error
	if p.parent, err = builtin.NewParentDriver(os.Stderr, ".", false, ""); err != nil {
		return nil, fmt.Errorf("port driver: %w", err)
	}
	for _, want := range ports {
		if want.HostPort == 0 {
			if want.HostPort, err = freePort(want); err != nil {
				return nil, err
			}
		}
		spec := port.Spec{Proto: want.Proto, ParentIP: want.HostIP, ParentPort: int(want.HostPort), ChildPort: int(want.ContainerPort), ChildIP: ip}
		if _, err := p.parent.AddPort(context.Background(), spec); err != nil {
			return nil, portError(want, err)
		}
		p.bound = append(p.bound, want)
	}
	return p, nil
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
		return fmt.Errorf("Bind for %s failed: %w", at, errInUse)
	case errors.Is(err, syscall.EACCES) || strings.Contains(err.Error(), "permission denied"):
		return fmt.Errorf("Bind for %s failed: without root, ports below %s cannot be bound (net.ipv4.ip_unprivileged_port_start); choose a higher one, or ask an administrator for: sysctl -w net.ipv4.ip_unprivileged_port_start=%d",
			at, lowest(), p.HostPort)
	case errors.Is(err, syscall.EADDRNOTAVAIL) || strings.Contains(err.Error(), "cannot assign requested address"):
		return fmt.Errorf("Bind for %s failed: this machine does not have the address", at)
	}
	return fmt.Errorf("Bind for %s failed: %w", at, err)
}

// run connects the ports with the container's namespace.
func (p *published) run(ns string) error {
	if p.parent == nil {
		return nil
	}
	quit := make(chan struct{}) // never closed: the process ends instead
	failed := make(chan error, 2)
	go func() {
		failed <- builtin.NewChildDriver(os.Stderr).RunChildDriver(p.parent.OpaqueForChild(), quit, ns)
	}()
	ready := make(chan struct{}, 1)
	go func() { failed <- p.parent.RunParentDriver(ready, quit, nil) }()
	select {
	case <-ready:
		return nil
	case err := <-failed:
		return fmt.Errorf("port driver: %w", err)
	}
}
