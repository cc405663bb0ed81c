package lifecycle

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"github.com/containerd/errdefs"
)

// hostsFile is the text of a container's /etc/hosts, as docker writes it: the fixed names, --add-host, and the
// container's own name for its address (none without a network). With the host's network it is the host's file.
func hostsFile(r *Record, ip netip.Addr) ([]byte, error) {
	var b bytes.Buffer
	if r.HostConfig.NetworkMode.IsHost() {
		host, err := os.ReadFile("/etc/hosts")
		if err != nil && !os.IsNotExist(err) {
			return nil, err
		}
		b.Write(host)
		if len(host) > 0 && host[len(host)-1] != '\n' {
			b.WriteByte('\n')
		}
	} else {
		b.WriteString("127.0.0.1\tlocalhost\n" +
			"::1\tlocalhost ip6-localhost ip6-loopback\n" +
			"fe00::\tip6-localnet\n" +
			"ff00::\tip6-mcastprefix\n" +
			"ff02::1\tip6-allnodes\n" +
			"ff02::2\tip6-allrouters\n")
	}
	for _, h := range r.HostConfig.ExtraHosts {
		name, addr, ok := strings.Cut(h, ":")
		if !ok {
			name, addr, ok = strings.Cut(h, "=")
		}
		addr = strings.Trim(addr, "[]")
		if addr == "host-gateway" {
			return nil, failure(errdefs.ErrInvalidArgument, "--add-host %s: host-gateway is not supported by moss yet", h)
		}
		if _, err := netip.ParseAddr(addr); err != nil || !ok {
			return nil, failure(errdefs.ErrInvalidArgument, "invalid IP address in add-host: %q", addr)
		}
		fmt.Fprintf(&b, "%s\t%s\n", addr, name)
	}
	if ip.IsValid() {
		names := r.Config.Hostname
		if d := r.Config.Domainname; d != "" {
			names = r.Config.Hostname + "." + d + " " + r.Config.Hostname
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, names)
	}
	return b.Bytes(), nil
}
