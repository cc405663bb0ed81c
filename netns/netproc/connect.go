package netproc

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rootless-containers/rootlesskit/v3/pkg/lowlevelmsgutil"
	"github.com/rootless-containers/rootlesskit/v3/pkg/port/builtin/msg"
	"github.com/rootless-containers/rootlesskit/v3/pkg/port/builtin/opaque"
	"golang.org/x/sys/unix"
)

// connector is the container's side of rootlesskit's builtin port driver, on the driver's own protocol: for each
// connection it opens a socket in the container's namespace and hands that over. The side that comes with the driver
// connects to one address alone, and so reaches either the servers that listen on eth0 or those on 127.0.0.1.
type connector struct {
	ns string // path of the network namespace
	ip netip.Addr
}

// serve answers the driver at the places that it names, until the process ends.
func (c *connector) serve(places map[string]string) error {
	path := places[opaque.SocketPath]
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) { // of a process that was killed
		return err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	defer l.Close()
	// The driver waits for the end of this pipe to know that the socket is there.
	ready, err := os.OpenFile(places[opaque.ChildReadyPipePath], os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	ready.Close()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if err := c.answer(conn); err != nil {
				_, _ = lowlevelmsgutil.MarshalToWriter(conn, &msg.Reply{Error: err.Error()})
			}
		}()
	}
}

func (c *connector) answer(conn *net.UnixConn) error {
	var req msg.Request
	if _, err := lowlevelmsgutil.UnmarshalFromReader(conn, &req); err != nil {
		return err
	}
	switch req.Type {
	case msg.RequestTypeInit:
		_, err := lowlevelmsgutil.MarshalToWriter(conn, &msg.Reply{})
		return err
	case msg.RequestTypeConnect:
		var f *os.File
		err := inNamespace(c.ns, func() (err error) {
			f, err = c.connect(req.Proto, req.Port)
			return err
		})
		if err != nil {
			return err
		}
		defer f.Close()
		// The descriptor needs a byte to travel with.
		_, _, err = conn.WriteMsgUnix([]byte{0}, unix.UnixRights(int(f.Fd())), nil)
		return err
	}
	return fmt.Errorf("unknown request %q", req.Type)
}

// connectTimeout bounds the wait for a server in the container whose queue is full.
const connectTimeout = 10 * time.Second

// connect opens a socket to a server in the current namespace. What listens on 127.0.0.1 alone comes last: it would
// take the connection for one of the container's own.
func (c *connector) connect(proto string, port int) (*os.File, error) {
	loopback, loopback6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	if proto == "udp" {
		// Whether somebody listens does not show from connecting.
		ip := c.ip
		if there, err := boundUDP(port); err == nil && !there(c.ip) && there(loopback) {
			ip = loopback
		}
		conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, uint16(port))))
		if err != nil {
			return nil, err
		}
		defer conn.Close()
		return conn.File()
	}
	var first error
	for _, ip := range []netip.Addr{c.ip, loopback, loopback6} {
		conn, err := net.DialTimeout("tcp", netip.AddrPortFrom(ip, uint16(port)).String(), connectTimeout)
		if err == nil {
			defer conn.Close()
			return conn.(*net.TCPConn).File()
		}
		if first == nil {
			first = err
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			break
		}
	}
	return nil, first
}

// boundUDP tells at which IPv4 addresses of the current namespace a datagram to a port is taken.
func boundUDP(port int) (func(netip.Addr) bool, error) {
	var at []netip.Addr
	for _, name := range []string{"udp", "udp6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if errors.Is(err, os.ErrNotExist) { // no IPv6 in this kernel
			continue
		}
		if err != nil {
			return nil, err
		}
		found, err := boundIn(f, port)
		f.Close()
		if err != nil {
			return nil, err
		}
		at = append(at, found...)
	}
	return func(ip netip.Addr) bool {
		for _, a := range at {
			if a.IsUnspecified() || a == ip {
				return true
			}
		}
		return false
	}, nil
}

// boundIn reads the local addresses with a port from /proc/net/udp or udp6 (proc_net(5)). Of IPv6 only "any address" is
// kept, which takes IPv4 too, as a rule.
func boundIn(r io.Reader, port int) ([]netip.Addr, error) {
	var out []netip.Addr
	s := bufio.NewScanner(r)
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 3 {
			continue
		}
		host, p, ok := strings.Cut(f[1], ":")
		if n, err := strconv.ParseUint(p, 16, 16); !ok || err != nil || int(n) != port {
			continue
		}
		switch len(host) {
		case 8:
			n, err := strconv.ParseUint(host, 16, 32)
			if err != nil {
				continue
			}
			var a [4]byte // printed as a number, as it lies in memory
			binary.NativeEndian.PutUint32(a[:], uint32(n))
			out = append(out, netip.AddrFrom4(a))
		case 32:
			if strings.Trim(host, "0") == "" {
				out = append(out, netip.IPv4Unspecified())
			}
		}
	}
	return out, s.Err()
}
