package netproc

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func testFilter(host string) *filter {
	f := &filter{subnet: netip.MustParsePrefix("10.0.2.0/24"), gateway: netip.MustParseAddr("10.0.2.1")}
	if host != "" {
		f.host = netip.MustParseAddr(host)
	}
	return f
}

func ether(kind uint16, body []byte) []byte {
	return append(binary.BigEndian.AppendUint16(make([]byte, 12), kind), body...)
}

func ipv4(dst string, proto byte, fragment, port uint16) []byte {
	p := make([]byte, 28)
	p[0], p[9] = 0x45, proto
	binary.BigEndian.PutUint16(p[6:], fragment)
	a := netip.MustParseAddr(dst).As4()
	copy(p[16:], a[:])
	binary.BigEndian.PutUint16(p[22:], port)
	return ether(unix.ETH_P_IP, p)
}

func arp(target string) []byte {
	p := make([]byte, 28)
	a := netip.MustParseAddr(target).As4()
	copy(p[24:], a[:])
	return ether(unix.ETH_P_ARP, p)
}

func TestFilter(t *testing.T) {
	const tcp, udp, icmp, sctp = unix.IPPROTO_TCP, unix.IPPROTO_UDP, unix.IPPROTO_ICMP, unix.IPPROTO_SCTP
	for _, c := range []struct {
		what  string
		frame []byte
		pass  bool
	}{
		{"a connection out", ipv4("192.0.2.1", tcp, 0, 80), true},
		{"a connection to the host's side of a private network", ipv4("10.0.3.1", tcp, 0, 80), true},
		{"a datagram out", ipv4("192.0.2.1", udp, 0, 4242), true},
		{"a part of a datagram out", ipv4("192.0.2.1", udp, 0x2000, 4242), true},
		{"a name asked of the gateway", ipv4("10.0.2.1", udp, 0, 53), true},
		{"a name asked of the gateway by tcp", ipv4("10.0.2.1", tcp, 0, 53), true},
		{"a connection to the gateway, to be refused", ipv4("10.0.2.1", tcp, 0, 80), true},
		{"a ping of the gateway", ipv4("10.0.2.1", icmp, 0, 0), true},
		{"who has the gateway", arp("10.0.2.1"), true},
		{"a datagram to the gateway", ipv4("10.0.2.1", udp, 0, 67), false},
		{"a datagram to the gateway in parts", ipv4("10.0.2.1", udp, 0x2000, 53), false},
		{"the second part of a datagram to the gateway", ipv4("10.0.2.1", udp, 1, 53), false},
		{"a ping that the stack would answer for somebody else", ipv4("192.0.2.1", icmp, 0, 0), false},
		{"another protocol", ipv4("192.0.2.1", sctp, 0, 80), false},
		{"this machine", ipv4("0.0.0.0", tcp, 0, 80), false},
		{"this network", ipv4("0.1.2.3", udp, 0, 80), false},
		{"loopback", ipv4("127.0.0.1", tcp, 0, 80), false},
		{"loopback's other end", ipv4("127.255.255.254", udp, 0, 80), false},
		{"a neighbour", ipv4("10.0.2.2", tcp, 0, 80), false},
		{"the subnet's broadcast", ipv4("10.0.2.255", udp, 0, 80), false},
		{"multicast", ipv4("224.0.0.251", udp, 0, 5353), false},
		{"reserved", ipv4("240.0.0.1", tcp, 0, 80), false},
		{"broadcast", ipv4("255.255.255.255", udp, 0, 67), false},
		{"who has a neighbour", arp("10.0.2.2"), false},
		{"IPv6", ether(unix.ETH_P_IPV6, make([]byte, 40)), false},
		{"nothing", nil, false},
		{"half a header", make([]byte, 13), false},
		{"ARP cut short", arp("10.0.2.1")[:41], false},
		{"IPv4 cut short", ipv4("192.0.2.1", tcp, 0, 80)[:33], false},
		{"a header that says to be longer than the packet", append(ether(unix.ETH_P_IP, []byte{0x4f}), ipv4("10.0.2.1", udp, 0, 53)[15:]...), false},
		{"a header that says to be shorter than one", append(ether(unix.ETH_P_IP, []byte{0x44}), ipv4("192.0.2.1", tcp, 0, 80)[15:]...), false},
		{"another version", append(ether(unix.ETH_P_IP, []byte{0x65}), ipv4("192.0.2.1", tcp, 0, 80)[15:]...), false},
	} {
		if got := testFilter("").pass(c.frame); got != c.pass {
			t.Errorf("%s: %v", c.what, got)
		}
	}
	f := testFilter("10.0.2.2")
	for frame, want := range map[string]bool{
		string(ipv4("10.0.2.2", tcp, 0, 80)): true, string(ipv4("10.0.2.2", udp, 0, 80)): true, string(arp("10.0.2.2")): true,
		string(ipv4("10.0.2.3", tcp, 0, 80)): false, string(arp("10.0.2.3")): false, string(ipv4("127.0.0.1", tcp, 0, 80)): false,
	} {
		if f.pass([]byte(frame)) != want {
			t.Errorf("with the host's loopback at 10.0.2.2: % x: %v", frame, !want)
		}
	}
}

// FuzzFilter feeds frames as a hostile container makes them: none may be read beyond its end, and none passes to where
// the host's kernel would take it for its own.
func FuzzFilter(f *testing.F) {
	f.Add(ipv4("127.0.0.1", unix.IPPROTO_UDP, 0, 53))
	f.Add(ipv4("10.0.2.1", unix.IPPROTO_UDP, 0, 53))
	f.Add(arp("10.0.2.1"))
	f.Fuzz(func(t *testing.T, frame []byte) {
		if !testFilter("").pass(frame) || binary.BigEndian.Uint16(frame[12:]) != unix.ETH_P_IP {
			return
		}
		dst := netip.AddrFrom4([4]byte(frame[30:34]))
		if dst.IsLoopback() || dst.IsUnspecified() || dst.IsMulticast() {
			t.Errorf("%s passes", dst)
		}
	})
}
