// Package netproc is the network process of a container: a network stack in user space behind the container's eth0, and
// the published ports. It is a program of its own; see package netns.
package netproc

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/containers/gvisor-tap-vsock/pkg/types"
	"github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/netns/netproto"
)

// Main never returns.
func Main() {
	// It ends when its monitor does, and on nothing else: a terminal's interrupts are for the container.
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT, syscall.SIGPIPE)
	logrus.SetOutput(os.Stderr)
	logrus.SetLevel(logrus.FatalLevel) // every connection that is refused would be a line otherwise
	unix.CloseOnExec(netproto.Fd)
	f := os.NewFile(netproto.Fd, "monitor")
	if err := serve(f); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, "network process:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// serve reads the configuration, answers, attaches, and stays until the monitor has gone.
func serve(f *os.File) error {
	dec, enc := json.NewDecoder(bufio.NewReader(f)), json.NewEncoder(f)
	var cfg netproto.Config
	if err := dec.Decode(&cfg); err != nil {
		return err
	}
	reply := func(r netproto.Reply, err error) error {
		if err != nil {
			r.Error = err.Error()
			var c *causedError
			if errors.As(err, &c) {
				r.Cause = c.cause
			}
		}
		return enc.Encode(r)
	}
	subnet, err := netip.ParsePrefix(cfg.Subnet)
	if err != nil {
		return reply(netproto.Reply{}, err)
	}
	keep := &filter{subnet: subnet, gateway: nth(subnet, 1)}
	if cfg.HostLoopback {
		keep.host = nth(subnet, 2)
	}
	gateway, ip := keep.gateway, nth(subnet, 100)
	ports, err := publish(cfg.Ports)
	if err != nil {
		return reply(netproto.Reply{}, err)
	}
	vn, err := newNetwork(keep, cfg.MTU)
	if err := reply(netproto.Reply{Ports: ports.bound}, err); err != nil {
		return err
	}
	var req netproto.Request
	if err := dec.Decode(&req); err != nil {
		return err
	}
	mac := hardwareAddr(ip)
	err = attach(req.Pid, func(ns string) error {
		tap, err := makeTap(ns, "eth0", netip.PrefixFrom(ip, subnet.Bits()), gateway, mac, cfg.MTU)
		if err != nil {
			return err
		}
		go pump(vn, device{tap, keep})
		return ports.run(&connector{ns: ns, ip: ip})
	})
	if err := reply(netproto.Reply{IP: ip.String(), MAC: mac.String()}, err); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return err
}

// attach runs f with a path of a process's network namespace that stays that one's: the number of a process may soon be
// another's.
func attach(pid int, f func(ns string) error) error {
	path := fmt.Sprintf("/proc/%d/ns/net", pid)
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open network namespace %s: %w", path, err)
	}
	return f(fmt.Sprintf("/proc/self/fd/%d", fd)) // the descriptor stays open as long as the process lives
}

// nth is the n-th address of a subnet, or its last but one where it is smaller.
func nth(p netip.Prefix, n int) netip.Addr {
	a := p.Masked().Addr()
	for range n {
		next := a.Next()
		if !p.Contains(next.Next()) {
			break
		}
		a = next
	}
	return a
}

// hardwareAddr is docker's: 02:42 and the address.
func hardwareAddr(ip netip.Addr) net.HardwareAddr {
	return append(net.HardwareAddr{0x02, 0x42}, ip.AsSlice()...)
}

// gatewayMAC is that of the stack's own end, as rootlesskit has it.
const gatewayMAC = "5a:94:ef:e4:0c:dd"

// newNetwork makes the stack that a filter stands before. It is gvisor-tap-vsock's, put together as rootlesskit's driver
// of that name does it. That driver itself runs ip and nsenter to make the device, which need not be installed, and has
// nothing before the stack.
func newNetwork(keep *filter, mtu int) (*virtualnetwork.VirtualNetwork, error) {
	cfg := &types.Configuration{
		MTU: mtu, Subnet: keep.subnet.String(), GatewayIP: keep.gateway.String(), GatewayMacAddress: gatewayMAC,
		DHCPStaticLeases: map[string]string{},
		// The gateway has no servers but the one for names. To connect to the broadcast address fails at once
		// ("network is unreachable"), and so the container is told; the filter lets no datagram get here.
		NAT: map[string]string{keep.gateway.String(): "255.255.255.255"},
	}
	if keep.host.IsValid() {
		cfg.GatewayVirtualIPs = []string{keep.host.String()}
		cfg.NAT[keep.host.String()] = "127.0.0.1"
	}
	vn, err := virtualnetwork.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("make a network: %w", err)
	}
	return vn, nil
}

// inNamespace runs f on a thread of its own in the network namespace at path. The thread is not used again.
func inNamespace(path string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			done <- fmt.Errorf("open %s: %w", path, err)
			return
		}
		defer unix.Close(fd)
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace %s: %w", path, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// lowest reads the lowest port that a user may bind.
func lowest() string {
	b, _ := os.ReadFile("/proc/sys/net/ipv4/ip_unprivileged_port_start")
	return strings.TrimSpace(string(b))
}
