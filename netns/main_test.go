package netns_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/netns"
	"github.com/moss-run/moss/netns/netproc"
)

// The tests run where the monitor would, and no packet of theirs leaves the machine. The test program starts itself
// twice: as the "host", in a network namespace of its own with an address of documentation (RFC 5737) and a name
// server, which keeps what it owns; and in a user namespace below it, which like the monitor's owns nothing of the
// host's network. A container is a process in a user and a network namespace below that one.
const stage = "NETNS_TEST_STAGE"

// hostAddr is the address of the host that is not of its loopback.
const hostAddr = "192.0.2.1"

func TestMain(m *testing.M) {
	switch os.Args[0] {
	case "moss-net":
		netproc.Main()
	case "container": // ends with the test
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	case "no-tun": // where the device is missing
		os.Exit(noTunMain())
	case "monitor": // starts a network, and is killed
		os.Exit(monitorMain())
	}
	switch os.Getenv(stage) {
	case "":
		os.Exit(again("host", unix.CLONE_NEWUSER|unix.CLONE_NEWNET|unix.CLONE_NEWNS, os.Getuid(), os.Getgid()))
	case "host":
		if err := becomeHost(); err != nil {
			fmt.Fprintln(os.Stderr, "make a host for the tests:", err)
			os.Exit(1)
		}
		os.Exit(again("outer", unix.CLONE_NEWUSER|unix.CLONE_NEWNS, 0, 0))
	}
	os.Exit(m.Run())
}

// again runs the test program as id 0 of a new user namespace.
func again(name string, flags uintptr, uid, gid int) int {
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), stage+"="+name)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Pdeathsig: unix.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{HostID: uid, Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: gid, Size: 1}}}
	err := cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "user namespace:", err)
		return 1
	}
	return 0
}

func becomeHost() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return err
	}
	// A pair of devices, since not every kernel has the dummy one. The other end is silent.
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "lan"}, PeerName: "wire"}
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("make a device: %w", err)
	}
	for _, name := range []string{"lan", "wire"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		if name == "lan" {
			addr, err := netlink.ParseAddr(hostAddr + "/24")
			if err != nil {
				return err
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if name == "lan" { // as a host has one: what it does not know goes that way
			gw := net.ParseIP("192.0.2.254")
			if err := netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gw}); err != nil {
				return err
			}
		}
	}
	// Like systemd-resolved, the host's resolver is on its loopback.
	f, err := os.CreateTemp("", "resolv")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	fmt.Fprintln(f, "nameserver 127.0.0.1\nsearch example.org")
	f.Close()
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := unix.Mount(f.Name(), "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind resolv.conf: %w", err)
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:53")
	if err != nil {
		return err
	}
	go nameServer(conn)
	return nil
}

// nameServer answers for count.example.org with another address at each question, for host.example.org always alike,
// and for nothing else.
func nameServer(conn net.PacketConn) {
	var count byte
	b := make([]byte, 1500)
	for {
		n, from, err := conn.ReadFrom(b)
		if err != nil {
			return
		}
		var q dnsmessage.Message
		if q.Unpack(b[:n]) != nil || len(q.Questions) != 1 {
			continue
		}
		name := q.Questions[0]
		r := dnsmessage.Message{Header: dnsmessage.Header{ID: q.ID, Response: true, RecursionAvailable: true}, Questions: q.Questions}
		answer := func(body dnsmessage.ResourceBody) {
			r.Answers = append(r.Answers, dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: name.Name, Class: dnsmessage.ClassINET}, Body: body})
		}
		switch {
		case name.Name.String() == "host.example.org." && name.Type == dnsmessage.TypeA:
			answer(&dnsmessage.AResource{A: netip.MustParseAddr(hostAddr).As4()})
		case name.Name.String() == "host.example.org." && name.Type == dnsmessage.TypeTXT:
			answer(&dnsmessage.TXTResource{TXT: []string{"of the host"}})
		case name.Name.String() == "host.example.org.":
		case name.Name.String() == "count.example.org." && name.Type == dnsmessage.TypeA:
			count++
			answer(&dnsmessage.AResource{A: [4]byte{198, 51, 100, count}})
		case name.Name.String() == "count.example.org.":
		default:
			r.RCode = dnsmessage.RCodeNameError
		}
		if out, err := r.Pack(); err == nil {
			conn.WriteTo(out, from)
		}
	}
}

// pod is a container with its network.
type pod struct {
	*testing.T
	net  *netns.Network
	info netns.Info
	pid  int
}

func config(t testing.TB, ports ...netns.Port) netns.Config {
	// Not t.TempDir: it is named after the test, and the path of a socket must be short.
	dir, err := os.MkdirTemp("", "net")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return netns.Config{HelperPath: "/proc/self/exe", HelperArgs: []string{"moss-net"}, Dir: dir, Ports: ports, LogFile: os.Stderr}
}

func start(t testing.TB, cfg netns.Config) *netns.Network {
	t.Helper()
	n, err := netns.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	return n
}

// container starts a process in a network namespace of its own.
func container(t testing.TB) int {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"container"}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	return cmd.Process.Pid
}

func newPod(t *testing.T, cfg netns.Config) *pod {
	t.Helper()
	p := &pod{T: t, net: start(t, cfg), pid: container(t)}
	var err error
	if p.info, err = p.net.Attach(p.pid); err != nil {
		t.Fatal(err)
	}
	return p
}

// inside runs f in the container's network namespace; the sockets that it makes stay there.
func (p *pod) inside(f func() error) {
	p.Helper()
	if err := p.try(f); err != nil {
		p.Fatal(err)
	}
}

func (p *pod) try(f func() error) error {
	done := make(chan error, 1)
	go func() { done <- lockedIn(p.pid, f) }()
	return <-done
}

// dial connects from the container.
func (p *pod) dial(network, addr string) net.Conn {
	p.Helper()
	var c net.Conn
	p.inside(func() (err error) { c, err = dialTimeout(network, addr); return })
	p.Cleanup(func() { c.Close() })
	return c
}

// echoTCP serves each connection of l: it sends back what it gets, and ends its side when the other has ended.
func echoTCP(t testing.TB, l net.Listener) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				io.Copy(c, c)
			})
		}
	})
	t.Cleanup(func() { l.Close() })
}

func echoUDP(t testing.TB, c net.PacketConn) {
	go func() {
		b := make([]byte, 65535)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
	t.Cleanup(func() { c.Close() })
}
