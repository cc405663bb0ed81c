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
			r.Error, r.InUse = err.Error(), errors.Is(err, errInUse)
		}
		return enc.Encode(r)
	}
	subnet, err := netip.ParsePrefix(cfg.Subnet)
	if err != nil {
		return reply(netproto.Reply{}, err)
	}
	gateway, ip := subnet.Addr().Next(), nth(subnet, 100)
	ports, err := publish(cfg.Ports, ip.String())
	if err != nil {
		return reply(netproto.Reply{}, err)
	}
	vn, err := newNetwork(subnet, gateway, cfg.MTU)
	if err := reply(netproto.Reply{Ports: ports.bound}, err); err != nil {
		return err
	}
	var req netproto.Request
	if err := dec.Decode(&req); err != nil {
		return err
	}
	mac := hardwareAddr(ip)
	ns := fmt.Sprintf("/proc/%d/ns/net", req.Pid)
	tap, err := makeTap(ns, "eth0", netip.PrefixFrom(ip, subnet.Bits()), gateway, mac, cfg.MTU)
	if err == nil {
		go pump(vn, tap)
		err = ports.run(ns)
	}
	if err := reply(netproto.Reply{IP: ip.String(), MAC: mac.String()}, err); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, f)
	return err
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

func newNetwork(subnet netip.Prefix, gateway netip.Addr, mtu int) (*virtualnetwork.VirtualNetwork, error) {
	vn, err := virtualnetwork.New(&types.Configuration{
		MTU: mtu, Subnet: subnet.String(), GatewayIP: gateway.String(), GatewayMacAddress: gatewayMAC,
		DHCPStaticLeases: map[string]string{},
		// The host's loopback is not for containers. The stack itself drops packets to 127.0.0.0/8; to dial 0.0.0.0 is to
		// dial this machine too, so that leads to where nobody answers.
		NAT: map[string]string{"0.0.0.0": "255.255.255.255"},
	})
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
