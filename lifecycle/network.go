package lifecycle

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"

	"github.com/moss-run/moss/netns"
)

// needsNetwork says whether a network process is started: not for the host's network, and not for none.
func needsNetwork(h *container.HostConfig) bool {
	return !h.NetworkMode.IsHost() && !h.NetworkMode.IsNone()
}

// startNetwork starts the network process, whose own start then overlaps the mounts.
func (m *monitor) startNetwork() (*netns.Network, error) {
	began := time.Now()
	helper := m.cfg.Programs.Net
	var err error
	cfg := netns.Config{HelperPath: helper.Path, HelperArgs: helper.Args, Trace: m.traceTook, LogFile: os.Stderr, Dir: m.cfg.RunDir}
	if cfg.Ports, err = publishedPorts(m.rec.HostConfig); err != nil {
		return nil, err
	}
	n, err := netns.Start(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	// The kernel takes 15 ms to take a network device down. Who published ports waits for them to be free; otherwise the
	// network process ends after the monitor, when nobody waits any more.
	if len(cfg.Ports) > 0 {
		m.defer_(func() { n.Close() })
	}
	m.trace("network process", "", began)
	return n, nil
}

// publishedPorts are the container's port bindings in the order of their numbers.
func publishedPorts(h *container.HostConfig) ([]netns.Port, error) {
	var ports []netns.Port
	for p, bindings := range h.PortBindings {
		if p.Proto() != network.TCP && p.Proto() != network.UDP {
			return nil, failure(errdefs.ErrInvalidArgument, "publish %s: only tcp and udp can be published", p)
		}
		for _, b := range bindings {
			port := netns.Port{ContainerPort: p.Num(), Proto: string(p.Proto())}
			if b.HostIP.IsValid() {
				port.HostIP = b.HostIP.String()
			}
			if b.HostPort != "" {
				n, err := strconv.ParseUint(b.HostPort, 10, 16)
				if err != nil {
					return nil, failure(errdefs.ErrInvalidArgument, "publish %s on host port %q: give one port", p, b.HostPort)
				}
				port.HostPort = uint16(n)
			}
			ports = append(ports, port)
		}
	}
	slices.SortFunc(ports, func(a, b netns.Port) int {
		return cmp.Or(cmp.Compare(a.ContainerPort, b.ContainerPort), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.HostPort, b.HostPort))
	})
	return ports, nil
}

// attachNetwork connects the container's namespace, and completes the files that tell of it.
func (m *monitor) attachNetwork(n *netns.Network, pid int) error {
	began := time.Now()
	info, err := n.Attach(pid)
	if err != nil {
		return err
	}
	ip, err := netip.ParseAddr(info.IP)
	if err != nil {
		return fmt.Errorf("network address %q: %w", info.IP, err)
	}
	gateway, _ := netip.ParseAddr(info.Gateway)
	ep := &network.EndpointSettings{IPAddress: ip, IPPrefixLen: info.PrefixLen, Gateway: gateway, NetworkID: networkID, EndpointID: m.cfg.ID}
	if mac, err := net.ParseMAC(info.MAC); err == nil {
		ep.MacAddress = network.HardwareAddr(mac)
	}
	m.state.Network = ep
	m.state.Ports = network.PortMap{}
	for _, p := range info.Ports {
		key, ok := network.PortFrom(p.ContainerPort, network.IPProtocol(p.Proto))
		if !ok {
			continue
		}
		addrs := []netip.Addr{netip.IPv4Unspecified()}
		if a, err := netip.ParseAddr(p.HostIP); err == nil {
			addrs[0] = a
		} else if _, err := os.Stat("/proc/net/if_inet6"); err == nil {
			addrs = append(addrs, netip.IPv6Unspecified()) // one socket serves both
		}
		for _, a := range addrs {
			m.state.Ports[key] = append(m.state.Ports[key], network.PortBinding{HostIP: a, HostPort: strconv.Itoa(int(p.HostPort))})
		}
	}
	hosts, err := hostsFile(m.rec, ip)
	if err != nil {
		return err
	}
	resolv, err := m.resolvConf(&info)
	if err != nil {
		return err
	}
	err = errors.Join(rewrite(m.dir.Etc("hosts"), hosts), rewrite(m.dir.Etc("resolv.conf"), resolv))
	go func() {
		<-n.Done()
		fmt.Fprintln(os.Stderr, "the network process has ended, and the container's network with it")
	}()
	m.trace("network", ip.String(), began)
	return err
}

// networkID stands for the one network that every container on "bridge" has for itself.
const networkID = "6d6f737300000000000000000000000000000000000000000000627269646765"
