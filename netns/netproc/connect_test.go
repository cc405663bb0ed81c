package netproc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func TestBoundInReadsTheKernelsTable(t *testing.T) {
	const udp = `   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
  12: 0100007F:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0
  13: 6402000A:0035 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0
  14: 00000000:0036 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 1 2 0 0
  15: 00000000000000000000000000000000:0037 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 1 2 0 0
  16: 00000000000000000000000001000000:0037 00000000000000000000000000000000:0000 07 0:0 00:0 0 0 0 1 2 0 0
  17: nonsense
  18: ZZ:0035 x
`
	for port, want := range map[int]string{53: "[127.0.0.1 10.0.2.100]", 54: "[0.0.0.0]", 55: "[0.0.0.0]", 56: "[]"} {
		got, err := boundIn(strings.NewReader(udp), port)
		if err != nil || fmt.Sprint(got) != want {
			t.Errorf("port %d: %v, %v; wanted %s", port, got, err, want)
		}
	}
}

func TestAddressesOfSmallSubnetsStayInThem(t *testing.T) {
	for subnet, want := range map[string]string{"10.0.2.0/24": "10.0.2.100", "10.0.2.0/30": "10.0.2.2", "10.0.2.8/29": "10.0.2.14", "10.0.0.0/8": "10.0.0.100"} {
		p := netip.MustParsePrefix(subnet)
		if got := nth(p, 100); got.String() != want {
			t.Errorf("%s: %s, wanted %s", subnet, got, want)
		}
		if used := []netip.Addr{nth(p, 1), nth(p, 100)}; slices.Contains(used[:1], used[1]) {
			t.Errorf("%s: gateway and container are both %s", subnet, used[0])
		}
	}
}
