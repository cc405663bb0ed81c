package netproc

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// filter keeps from the stack what would not end where the container means it to. The stack opens a socket of the host
// for whatever address a packet names, and the kernel has ideas of its own of some: 0.0.0.0 is this machine, a datagram
// to 255.255.255.255 goes to everybody on the host's network and to its own listeners (the standard library allows it
// on each socket that it makes), and an address of the container's subnet may be somebody else's on the host's side.
// A container may have CAP_NET_RAW, and so send any packet.
type filter struct {
	subnet  netip.Prefix
	gateway netip.Addr
	host    netip.Addr // stands for the host's loopback; invalid if that is out of reach
}

const (
	etherHeader = 14
	arpLen      = 28
	ipv4Header  = 20
	dnsPort     = 53
)

// pass says whether a frame of the container's may reach the stack.
func (f *filter) pass(frame []byte) bool {
	if len(frame) < etherHeader {
		return false
	}
	body := frame[etherHeader:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case unix.ETH_P_ARP:
		// Only who has something of the stack's: a container asking for a neighbour then gets "no route to host".
		return len(body) >= arpLen && f.ours(netip.AddrFrom4([4]byte(body[24:28])))
	case unix.ETH_P_IP:
		return f.passIPv4(body)
	}
	return false // IPv6 among them, which the stack does not speak
}

func (f *filter) ours(a netip.Addr) bool { return a == f.gateway || a == f.host }

func (f *filter) passIPv4(p []byte) bool {
	if len(p) < ipv4Header || p[0]>>4 != 4 {
		return false
	}
	head := int(p[0]&0xf) * 4
	if head < ipv4Header || len(p) < head {
		return false
	}
	dst, proto := netip.AddrFrom4([4]byte(p[16:20])), p[9]
	switch {
	case dst == f.gateway:
		return f.passGateway(proto, binary.BigEndian.Uint16(p[6:]), p[head:])
	case !unicast(dst) || f.subnet.Contains(dst) && dst != f.host:
		return false
	}
	// The stack would answer each ping by itself, whether the other end lives or not.
	return proto == unix.IPPROTO_TCP || proto == unix.IPPROTO_UDP
}

// passGateway lets names be asked for, and pings. Other connections get as far as the stack, which refuses them (see
// newNetwork); other datagrams do not, because what it would do with them is to send them on.
func (f *filter) passGateway(proto byte, fragment uint16, payload []byte) bool {
	switch proto {
	case unix.IPPROTO_ICMP:
		return true
	case unix.IPPROTO_TCP:
		return fragment&0x3fff == 0
	case unix.IPPROTO_UDP:
		// The port is in the first fragment alone, so that none is let through.
		return fragment&0x3fff == 0 && len(payload) >= 8 && binary.BigEndian.Uint16(payload[2:]) == dnsPort
	}
	return false
}

// unicast says whether an address is one machine, and another one: not "this network" (0.0.0.0/8), a loopback address,
// multicast, reserved or broadcast (RFC 6890).
func unicast(a netip.Addr) bool {
	first := a.As4()[0]
	return first != 0 && first != 127 && first < 224
}
