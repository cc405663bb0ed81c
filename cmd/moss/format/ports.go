package format

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
)

// Ports is the PORTS column: "0.0.0.0:8080->80/tcp, 443/tcp". Neighbouring ports that are only exposed, or published
// under their own number, are put together as a range; those published under another number come last, one by one.
func Ports(ports []container.PortSummary) string {
	sorted := slices.Clone(ports)
	slices.SortStableFunc(sorted, func(a, b container.PortSummary) int {
		return cmp.Or(cmp.Compare(a.PrivatePort, b.PrivatePort), a.IP.Compare(b.IP),
			cmp.Compare(a.PublicPort, b.PublicPort), cmp.Compare(a.Type, b.Type))
	})
	// One open range for each address and protocol; a gap closes it.
	var closed, moved []string
	var open []*portRange
	for _, p := range sorted {
		ip := ""
		if p.IP.IsValid() {
			ip = p.IP.String()
			if p.PublicPort != p.PrivatePort {
				moved = append(moved, fmt.Sprintf("%s->%d/%s", net.JoinHostPort(ip, strconv.Itoa(int(p.PublicPort))), p.PrivatePort, p.Type))
				continue
			}
		}
		i := slices.IndexFunc(open, func(r *portRange) bool { return r.ip == ip && r.proto == p.Type })
		switch {
		case i < 0:
			open = append(open, &portRange{ip, p.Type, p.PrivatePort, p.PrivatePort})
		case p.PrivatePort == open[i].last: // the same port twice says nothing new
		case p.PrivatePort == open[i].last+1:
			open[i].last++
		default:
			closed = append(closed, open[i].String())
			*open[i] = portRange{ip, p.Type, p.PrivatePort, p.PrivatePort}
		}
	}
	for _, r := range open {
		closed = append(closed, r.String())
	}
	return strings.Join(append(closed, moved...), ", ")
}

type portRange struct {
	ip, proto   string
	first, last uint16
}

func (r portRange) String() string {
	s := strconv.Itoa(int(r.first))
	if r.last != r.first {
		s += "-" + strconv.Itoa(int(r.last))
	}
	if r.ip != "" {
		s = net.JoinHostPort(r.ip, s) + "->" + s
	}
	return s + "/" + r.proto
}
