package netproc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/containers/gvisor-tap-vsock/pkg/virtualnetwork"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// makeTap makes a TAP device in a network namespace and configures it by netlink. The descriptor works from outside.
func makeTap(ns, name string, addr netip.Prefix, gateway netip.Addr, mac net.HardwareAddr, mtu int) (*os.File, error) {
	fd := -1
	err := inNamespace(ns, func() error {
		var err error
		fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("open /dev/net/tun: %w", err)
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			return fmt.Errorf("make TAP device %s: %w", name, err)
		}
		h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
		if err != nil {
			return fmt.Errorf("netlink: %w", err)
		}
		defer h.Close()
		if lo, err := h.LinkByName("lo"); err != nil {
			return fmt.Errorf("find lo: %w", err)
		} else if err := h.LinkSetUp(lo); err != nil {
			return fmt.Errorf("set lo up: %w", err)
		}
		link, err := h.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		ip := &net.IPNet{IP: addr.Addr().AsSlice(), Mask: net.CIDRMask(addr.Bits(), addr.Addr().BitLen())}
		for _, step := range []struct {
			what string
			f    func() error
		}{
			{"address", func() error { return h.AddrAdd(link, &netlink.Addr{IPNet: ip}) }},
			{"hardware address", func() error { return h.LinkSetHardwareAddr(link, mac) }},
			{"MTU", func() error { return h.LinkSetMTU(link, mtu) }},
			{"state", func() error { return h.LinkSetUp(link) }},
			{"route", func() error { return h.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}) }},
		} {
			if err := step.f(); err != nil {
				return fmt.Errorf("set %s of %s: %w", step.what, name, err)
			}
		}
		return nil
	})
	if err != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return nil, err
	}
	// Not before the device is up: the Go runtime starts to poll the descriptor here, and a TAP descriptor without a device
	// is in error, which the runtime takes for good ("not pollable").
	return os.NewFile(uintptr(fd), name), nil
}

// pump moves packets between the device and the stack until the namespace has gone.
func pump(vn *virtualnetwork.VirtualNetwork, tap device) {
	// The protocol of datagrams without framing: a read is a packet, and so is a write.
	err := vn.AcceptBess(context.Background(), tap)
	fmt.Fprintln(os.Stderr, "the container's network device:", err)
}

// device makes a TAP device look like a connection of packets: of those that the filter lets through.
type device struct {
	*os.File
	keep *filter
}

// Read reads the next packet.
func (d device) Read(b []byte) (int, error) {
	for {
		n, err := d.File.Read(b)
		if err != nil || d.keep.pass(b[:n]) {
			return n, err
		}
	}
}

// Write drops what the device does not take, as a wire would: the container has set it down, or does not read.
func (d device) Write(b []byte) (int, error) {
	n, err := d.File.Write(b)
	if errors.Is(err, unix.EIO) || errors.Is(err, unix.EINVAL) {
		return len(b), nil
	}
	return n, err
}

func (device) LocalAddr() net.Addr                { return tapAddr{} }
func (device) RemoteAddr() net.Addr               { return tapAddr{} }
func (d device) SetDeadline(time.Time) error      { return nil }
func (d device) SetReadDeadline(time.Time) error  { return nil }
func (d device) SetWriteDeadline(time.Time) error { return nil }

type tapAddr struct{}

func (tapAddr) Network() string { return "tap" }
func (tapAddr) String() string  { return "tap" }
