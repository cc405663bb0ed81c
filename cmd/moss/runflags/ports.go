package runflags

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/docker/go-connections/nat"
	"github.com/moby/moby/api/types/network"
)

// parsePorts reads -p and --expose.
func parsePorts(publish, expose []string) (network.PortSet, network.PortMap, error) {
	set, bindings := network.PortSet{}, network.PortMap{}
	for _, p := range publish {
		maps, err := nat.ParsePortSpec(p)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid argument %q for \"-p, --publish\" flag: %w", p, err)
		}
		for _, m := range maps {
			port, err := network.ParsePort(string(m.Port))
			if err != nil {
				return nil, nil, fmt.Errorf("invalid argument %q for \"-p, --publish\" flag: %w", p, err)
			}
			b := network.PortBinding{HostPort: m.Binding.HostPort}
			if ip := m.Binding.HostIP; ip != "" {
				if b.HostIP, err = netip.ParseAddr(strings.Trim(ip, "[]")); err != nil {
					return nil, nil, fmt.Errorf("invalid argument %q for \"-p, --publish\" flag: invalid IP address: %s", p, ip)
				}
			}
			set[port] = struct{}{}
			bindings[port] = append(bindings[port], b)
		}
	}
	for _, e := range expose {
		if strings.Contains(e, ":") {
			return nil, nil, fmt.Errorf("invalid port format for --expose: %s", e)
		}
		r, err := network.ParsePortRange(e)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %w", err)
		}
		for p := range r.All() {
			set[p] = struct{}{}
		}
	}
	if len(bindings) == 0 {
		bindings = nil
	}
	return set, bindings, nil
}
