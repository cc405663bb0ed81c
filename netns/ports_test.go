package netns_test

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/containerd/errdefs"

	"github.com/moss-run/moss/netns"
)

func TestPublishedTCPReachesTheServerWhereverItListens(t *testing.T) {
	for _, at := range []string{"0.0.0.0:80", "127.0.0.1:80", "10.0.2.100:80", "[::]:80", "[::1]:80"} {
		t.Run(at, func(t *testing.T) {
			p := newPod(t, config(t, netns.Port{HostIP: "127.0.0.1", ContainerPort: 80, Proto: "tcp"}))
			if len(p.info.Ports) != 1 || p.info.Ports[0].HostPort == 0 {
				t.Fatalf("%+v", p.info.Ports)
			}
			p.inside(func() error {
				l, err := net.Listen("tcp", at)
				if err == nil {
					echoTCP(t, l)
				}
				return err
			})
			c, err := dialTimeout("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(p.info.Ports[0].HostPort))))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			roundTrip(t, c)
		})
	}
}

func TestPublishedUDPReachesTheServerWhereverItListens(t *testing.T) {
	for _, at := range []string{"0.0.0.0:53", "127.0.0.1:53", "10.0.2.100:53", "[::]:53"} {
		t.Run(at, func(t *testing.T) {
			p := newPod(t, config(t, netns.Port{HostIP: "127.0.0.1", ContainerPort: 53, Proto: "udp"}))
			p.inside(func() error {
				c, err := net.ListenPacket("udp", at)
				if err == nil {
					echoUDP(t, c)
				}
				return err
			})
			c, err := dialTimeout("udp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(p.info.Ports[0].HostPort))))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			for _, size := range []int{1, 1400, 9000} {
				pingPong(t, c, size)
			}
		})
	}
}

func TestPortWithoutAddressIsOnEveryAddress(t *testing.T) {
	p := newPod(t, config(t, netns.Port{ContainerPort: 80, Proto: "tcp"}))
	p.inside(func() error {
		l, err := net.Listen("tcp", ":80")
		if err == nil {
			echoTCP(t, l)
		}
		return err
	})
	for _, ip := range []string{"127.0.0.1", hostAddr, "::1"} {
		c, err := dialTimeout("tcp", net.JoinHostPort(ip, strconv.Itoa(int(p.info.Ports[0].HostPort))))
		if err != nil {
			t.Errorf("%s: %v", ip, err)
			continue
		}
		roundTrip(t, c)
		c.Close()
	}
}

// refused starts a network whose ports cannot be had.
func refused(t *testing.T, ports ...netns.Port) error {
	t.Helper()
	n, err := netns.Start(context.Background(), config(t, ports...))
	if err != nil {
		return err
	}
	defer n.Close()
	_, err = n.Attach(container(t))
	return err
}

func TestPortThatIsTakenIsAConflictInDockersWords(t *testing.T) {
	l, u := listen(t, "0.0.0.0:0"), listenUDP(t, "127.0.0.1:0")
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, uport, _ := net.SplitHostPort(u.LocalAddr().String())
	n, _ := strconv.Atoi(port)
	un, _ := strconv.Atoi(uport)
	for _, c := range []struct {
		port netns.Port
		want string
	}{
		{netns.Port{HostPort: uint16(n), ContainerPort: 80, Proto: "tcp"}, "Bind for 0.0.0.0:" + port + " failed: port is already allocated"},
		{netns.Port{HostIP: "127.0.0.1", HostPort: uint16(n), ContainerPort: 80, Proto: "tcp"}, "Bind for 127.0.0.1:" + port + " failed: port is already allocated"},
		{netns.Port{HostIP: "127.0.0.1", HostPort: uint16(un), ContainerPort: 80, Proto: "udp"}, "Bind for 127.0.0.1:" + uport + " failed: port is already allocated"},
	} {
		err := refused(t, c.port)
		if !errors.Is(err, errdefs.ErrConflict) || err.Error() != c.want {
			t.Errorf("%v\nwanted %s", err, c.want)
		}
	}
	// A container against itself.
	free := listen(t, "127.0.0.1:0")
	_, port, _ = net.SplitHostPort(free.Addr().String())
	free.Close()
	n, _ = strconv.Atoi(port)
	twice := netns.Port{HostIP: "127.0.0.1", HostPort: uint16(n), ContainerPort: 80, Proto: "tcp"}
	if err := refused(t, twice, twice); !errors.Is(err, errdefs.ErrConflict) {
		t.Errorf("twice the same: %v", err)
	}
}

func TestPortIsFreeAgainWhenTheNetworkIsClosed(t *testing.T) {
	p := newPod(t, config(t, netns.Port{HostIP: "127.0.0.1", ContainerPort: 80, Proto: "tcp"}))
	p.net.Close()
	listen(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(int(p.info.Ports[0].HostPort))))
}

func TestPrivilegedPortNamesTheSysctl(t *testing.T) {
	err := refused(t, netns.Port{HostIP: "127.0.0.1", HostPort: 80, ContainerPort: 80, Proto: "tcp"})
	if !errors.Is(err, errdefs.ErrPermissionDenied) || !strings.Contains(err.Error(), "net.ipv4.ip_unprivileged_port_start=80") {
		t.Errorf("%v", err)
	}
}

func TestAddressThatTheHostDoesNotHaveIsRefused(t *testing.T) {
	err := refused(t, netns.Port{HostIP: "198.51.100.7", HostPort: 8080, ContainerPort: 80, Proto: "tcp"})
	if !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "198.51.100.7") {
		t.Errorf("%v", err)
	}
}
