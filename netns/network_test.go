package netns_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/netns"
)

func lockedIn(pid int, f func() error) error {
	runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/ns/net", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return err
	}
	return f()
}

func dialTimeout(network, addr string) (net.Conn, error) {
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err == nil {
		c.SetDeadline(time.Now().Add(30 * time.Second))
	}
	return c, err
}

func listen(t testing.TB, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func listenUDP(t testing.TB, addr string) net.PacketConn {
	t.Helper()
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// roundTrip sends 10 MB, half-closes, and expects the same bytes and then the end.
func roundTrip(t testing.TB, c net.Conn) {
	t.Helper()
	want := make([]byte, 10<<20)
	rand.Read(want)
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(want)
		sent <- errors.Join(err, c.(*net.TCPConn).CloseWrite())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil {
		t.Fatalf("after %d bytes: %v", len(got), err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%d bytes came back, of %d, or others", len(got), len(want))
	}
}

func pingPong(t testing.TB, c net.Conn, size int) {
	t.Helper()
	want := make([]byte, size)
	rand.Read(want)
	b := make([]byte, 65535)
	for try := 0; ; try++ { // datagrams may be lost
		if _, err := c.Write(want); err != nil && !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatal(err)
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		n, err := c.Read(b)
		if err == nil && bytes.Equal(b[:n], want) {
			return
		}
		if try == 5 {
			t.Fatalf("no answer to a datagram of %d bytes: %v", size, err)
		}
	}
}

func TestTheInterfaceIsAsDockerNamesIt(t *testing.T) {
	p := newPod(t, config(t))
	p.inside(func() error {
		eth0, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if got := eth0.HardwareAddr.String(); got != p.info.MAC || got != "02:42:0a:00:02:64" {
			t.Errorf("hardware address %s, said %s", got, p.info.MAC)
		}
		if eth0.MTU != 65520 || eth0.Flags&net.FlagUp == 0 {
			t.Errorf("eth0: %+v", eth0)
		}
		addrs, err := eth0.Addrs()
		if err != nil {
			return err
		}
		if want := fmt.Sprintf("%s/%d", p.info.IP, p.info.PrefixLen); len(addrs) == 0 || addrs[0].String() != want || want != "10.0.2.100/24" {
			t.Errorf("addresses %v, said %s", addrs, want)
		}
		lo, err := net.InterfaceByName("lo")
		if err != nil {
			return err
		}
		if lo.Flags&net.FlagUp == 0 {
			t.Error("lo is down")
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return err
		}
		defer h.Close()
		routes, err := h.RouteGet(net.ParseIP("192.0.2.77"))
		if err != nil || len(routes) != 1 || routes[0].Gw.String() != p.info.Gateway {
			t.Errorf("route: %v, %v; said %s", routes, err, p.info.Gateway)
		}
		return nil
	})
}

func TestSubnetAndMTUAreChosen(t *testing.T) {
	cfg := config(t)
	cfg.Subnet, cfg.MTU = netip.MustParsePrefix("10.77.3.9/28"), 1500
	p := newPod(t, cfg)
	if p.info.Gateway != "10.77.3.1" || p.info.PrefixLen != 28 || !netip.MustParsePrefix("10.77.3.0/28").Contains(netip.MustParseAddr(p.info.IP)) {
		t.Errorf("%+v", p.info)
	}
	l := listen(t, hostAddr+":0")
	echoTCP(t, l)
	roundTrip(t, p.dial("tcp", l.Addr().String()))
}

func TestSubnetThatCannotBeIsRefused(t *testing.T) {
	for _, s := range []string{"fd00::/64", "10.0.0.0/31", "127.0.0.0/24", "224.0.1.0/24"} {
		cfg := config(t)
		cfg.Subnet = netip.MustParsePrefix(s)
		n, err := netns.Start(t.Context(), cfg)
		if err == nil {
			n.Close()
		}
		if !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("%s: %v", s, err)
		}
	}
}

func TestTCPOutCarriesTenMegabytesBothWaysAndHalfCloses(t *testing.T) {
	p := newPod(t, config(t))
	l := listen(t, hostAddr+":0")
	echoTCP(t, l)
	roundTrip(t, p.dial("tcp", l.Addr().String()))
}

func TestConnectionRefusedIsSaidAtOnce(t *testing.T) {
	p := newPod(t, config(t))
	began := time.Now()
	err := p.try(func() error { _, err := dialTimeout("tcp", hostAddr+":9"); return err })
	if !errors.Is(err, syscall.ECONNREFUSED) || time.Since(began) > 2*time.Second {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}

func TestUDPOutIsAnswered(t *testing.T) {
	p := newPod(t, config(t))
	s := listenUDP(t, hostAddr+":0")
	echoUDP(t, s)
	c := p.dial("udp", s.LocalAddr().String())
	for _, size := range []int{1, 1400, 9000, 60000} {
		pingPong(t, c, size)
	}
}

func resolver(p *pod, network string) *net.Resolver {
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var c net.Conn
		err := p.try(func() (err error) { c, err = dialTimeout(network, net.JoinHostPort(p.info.DNS, "53")); return })
		return c, err
	}}
}

func TestNamesAreAskedOfTheHostsResolverEachTime(t *testing.T) {
	p := newPod(t, config(t))
	for _, network := range []string{"udp", "tcp"} {
		r := resolver(p, network)
		if got, err := r.LookupHost(t.Context(), "host.example.org."); err != nil || len(got) != 1 || got[0] != hostAddr {
			t.Errorf("%s: %v, %v", network, got, err)
		}
		if got, err := r.LookupTXT(t.Context(), "host.example.org."); err != nil || len(got) != 1 || got[0] != "of the host" {
			t.Errorf("%s: %v, %v", network, got, err)
		}
		var no *net.DNSError
		if got, err := r.LookupHost(t.Context(), "nowhere.example.org."); !errors.As(err, &no) || !no.IsNotFound {
			t.Errorf("%s: %v, %v", network, got, err)
		}
		a, errA := r.LookupHost(t.Context(), "count.example.org.")
		b, errB := r.LookupHost(t.Context(), "count.example.org.")
		if err := errors.Join(errA, errB); err != nil || a[0] == b[0] {
			t.Errorf("%s: the same answer twice: %v %v %v", network, a, b, err)
		}
	}
}

func TestTheHostsLoopbackIsOutOfReach(t *testing.T) {
	l, u := listen(t, "127.0.0.1:0"), listenUDP(t, "0.0.0.0:0")
	echoTCP(t, l)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, uport, _ := net.SplitHostPort(u.LocalAddr().String())
	p := newPod(t, config(t))
	for _, ip := range []string{"10.0.2.1", "10.0.2.2", "10.0.2.3", "10.0.2.255", "0.0.0.0", "127.0.0.1", "::1", "255.255.255.255", "127.9.9.9"} {
		began := time.Now()
		err := p.try(func() error { _, err := dialTimeout("tcp", net.JoinHostPort(ip, port)); return err })
		if err == nil || time.Since(began) > 8*time.Second {
			t.Errorf("tcp %s after %v: %v", ip, time.Since(began), err)
		}
	}
	// A container may make packets of its own.
	p.inside(func() error {
		n, _ := strconv.Atoi(uport)
		for _, ip := range []string{"127.0.0.1", "0.0.0.0", "0.1.2.3", "10.0.2.1", "10.0.2.2", "255.255.255.255", "224.0.0.1", "127.255.255.255", "240.0.0.1"} {
			if err := sendFrame(p.info, netip.MustParseAddr(ip), uint16(n)); err != nil {
				return fmt.Errorf("%s: %w", ip, err)
			}
		}
		// This one may arrive, and shows that the others could have.
		return sendFrame(p.info, netip.MustParseAddr(hostAddr), uint16(n))
	})
	b := make([]byte, 100)
	arrived := false
	for wait := 10 * time.Second; ; wait = 500 * time.Millisecond { // each goes its own way, so that a late one counts too
		u.SetReadDeadline(time.Now().Add(wait))
		n, from, err := u.ReadFrom(b)
		if err != nil {
			break
		}
		if got := string(b[:n]); got == hostAddr {
			arrived = true
		} else {
			t.Errorf("a packet to %s has come from %s", got, from)
		}
	}
	if !arrived {
		t.Error("no packet has come at all")
	}
}

// sendFrame writes a datagram on the wire whose text is its own destination.
func sendFrame(info netns.Info, dst netip.Addr, port uint16) error {
	eth0, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	src, text, to := netip.MustParseAddr(info.IP).As4(), dst.String(), dst.As4()
	f := append([]byte{0x5a, 0x94, 0xef, 0xe4, 0x0c, 0xdd}, eth0.HardwareAddr...)
	f = append(f, 8, 0)
	ip := []byte{0x45, 0, 0, byte(28 + len(text)), 0, 1, 0, 0, 64, unix.IPPROTO_UDP, 0, 0}
	ip = append(append(ip, src[:]...), to[:]...)
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(ip[i])<<8 | uint32(ip[i+1])
	}
	sum = ^(sum&0xffff + sum>>16)
	ip[10], ip[11] = byte(sum>>8), byte(sum)
	f = append(f, ip...)
	f = append(f, 0x30, 0x39, byte(port>>8), byte(port), 0, byte(8+len(text)), 0, 0)
	f = append(f, text...)
	return unix.Sendto(fd, f, 0, &unix.SockaddrLinklayer{Ifindex: eth0.Index})
}

func TestTheHostsLoopbackIsReachedWhereAsked(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	echoTCP(t, l)
	_, port, _ := net.SplitHostPort(l.Addr().String())
	cfg := config(t)
	cfg.HostLoopback = true
	p := newPod(t, cfg)
	roundTrip(t, p.dial("tcp", "10.0.2.2:"+port))
	cfg.Subnet = netip.MustParsePrefix("10.0.2.0/30")
	if _, err := netns.Start(t.Context(), cfg); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a subnet without room for it: %v", err)
	}
	if err := p.try(func() error { _, err := dialTimeout("tcp", "10.0.2.3:"+port); return err }); err == nil {
		t.Error("by 10.0.2.3 too")
	}
}

func TestProcessThatIsKilledIsNoticed(t *testing.T) {
	n := start(t, config(t))
	pid := container(t)
	if _, err := n.Attach(pid); err != nil {
		t.Fatal(err)
	}
	killChildNamed(t, os.Getpid(), "moss-net")
	select {
	case <-n.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("Done is not closed")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}

func TestAttachToAProcessThatHasGoneIsAnError(t *testing.T) {
	n := start(t, config(t))
	killChildNamed(t, os.Getpid(), "moss-net")
	if _, err := n.Attach(os.Getpid()); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("%v", err)
	}
}

func TestAttachToNoProcessIsAnError(t *testing.T) {
	n := start(t, config(t))
	if _, err := n.Attach(1 << 29); err == nil || !strings.Contains(err.Error(), "network namespace") {
		t.Errorf("%v", err)
	}
}

func TestContextEndsTheProcess(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	n, err := netns.Start(ctx, config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	cancel()
	select {
	case <-n.Done():
	case <-time.After(10 * time.Second):
		t.Error("still there")
	}
}

// childrenNamed are the processes whose parent is pid (or any, for 0) and whose argv[0] is name.
func childrenNamed(t *testing.T, pid int, name string) []int {
	t.Helper()
	var out []int
	entries, err := os.ReadDir("/proc")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		cmdline, _ := os.ReadFile("/proc/" + e.Name() + "/cmdline")
		stat, _ := os.ReadFile("/proc/" + e.Name() + "/stat")
		_, rest, ok := strings.Cut(string(stat), ") ")
		f := strings.Fields(rest)
		if !ok || len(f) < 2 || f[0] == "Z" {
			continue
		}
		if arg0, _, _ := strings.Cut(string(cmdline), "\x00"); arg0 == name && f[1] == strconv.Itoa(pid) {
			out = append(out, id)
		}
	}
	return out
}

func killChildNamed(t *testing.T, parent int, name string) {
	t.Helper()
	// The child may not have executed yet, and has this program's name until then.
	for range 100 {
		if ids := childrenNamed(t, parent, name); len(ids) == 1 {
			if err := unix.Kill(ids[0], unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("no one child %s", name)
}

func noTunMain() int {
	err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("none", "/dev", "tmpfs", 0, ""))
	if err == nil {
		_, err = netns.Start(context.Background(), netns.Config{HelperPath: "/proc/self/exe", HelperArgs: []string{"moss-net"}})
	}
	fmt.Println(errors.Is(err, errdefs.ErrUnavailable), err)
	return 0
}

func TestMissingTunDeviceNamesTheRemedies(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"no-tun"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"true open /dev/net/tun", "modprobe tun", "--network host", "--network none"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q does not say %q", out, want)
		}
	}
}

func monitorMain() int {
	n, err := netns.Start(context.Background(), netns.Config{HelperPath: "/proc/self/exe", HelperArgs: []string{"moss-net"}})
	if err == nil {
		_, err = n.Attach(os.Getpid()) // fails, since the host has its own; it tells that the process is ready
	}
	fmt.Println("ready", err)
	select {}
}

func TestProcessEndsWithItsMonitor(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"monitor"}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// In a namespace of its own: it attaches itself, and must not change the host.
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line := make([]byte, 100)
	n, _ := out.Read(line)
	if got := string(line[:n]); got != "ready <nil>\n" {
		t.Errorf("%q", got)
	}
	ids := childrenNamed(t, cmd.Process.Pid, "moss-net")
	if len(ids) != 1 {
		t.Fatalf("network processes: %v", ids)
	}
	cmd.Process.Kill()
	cmd.Wait()
	for range 100 {
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", ids[0])); err != nil || bytes.Contains(b, []byte(") Z ")) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	unix.Kill(ids[0], unix.SIGKILL)
	t.Error("the process outlives its monitor")
}

// BenchmarkStart measures from the exec of the process to its readiness, and the attaching, and not the ending. The test
// program is slower to start than moss-net, a path to which may be in NETNS_TEST_HELPER.
func BenchmarkStart(b *testing.B) {
	var ready, attach time.Duration
	for b.Loop() {
		cfg := config(b)
		cfg.Trace = func(step, _ string, took time.Duration) {
			switch step {
			case "network process ready":
				ready += took
			case "eth0":
				attach += took
			}
		}
		if path := os.Getenv("NETNS_TEST_HELPER"); path != "" {
			cfg.HelperPath = path
		}
		pid := container(b)
		n := start(b, cfg)
		if _, err := n.Attach(pid); err != nil {
			b.Fatal(err)
		}
		n.Close()
	}
	b.ReportMetric(float64(ready.Microseconds())/1e3/float64(b.N), "ready-ms/op")
	b.ReportMetric(float64(attach.Microseconds())/1e3/float64(b.N), "attach-ms/op")
}
