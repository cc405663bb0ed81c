package netns

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
)

// Resolver is what the user asked for: --dns, --dns-search, --dns-option.
type Resolver struct{ Servers, Search, Options []string }

// ResolvConf is the text of a container's resolv.conf (resolv.conf(5)). With a network process (info is not nil) the
// name server is the one at its gateway, which asks the host's resolver anew each time; else the host's own are named.
// Search domains and options are the host's, unless the user gives some.
func ResolvConf(info *Info, user Resolver) ([]byte, error) {
	host, err := os.ReadFile("/etc/resolv.conf")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return resolvConf(host, info, user), nil
}

func resolvConf(host []byte, info *Info, user Resolver) []byte {
	servers, search, options := user.Servers, user.Search, user.Options
	var hostServers []string
	for _, line := range strings.Split(string(host), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		switch f[0] {
		case "nameserver":
			if _, err := netip.ParseAddr(f[1]); err == nil { // fe80::1%eth0 among them
				hostServers = append(hostServers, f[1])
			}
		case "search", "domain":
			if len(user.Search) == 0 {
				search = f[1:]
			}
		case "options":
			if len(user.Options) == 0 {
				options = f[1:]
				if info != nil {
					// The gateway's resolver does not do what these ask for, and docker's does not pass them on either.
					options = slices.DeleteFunc(options, func(o string) bool { return o == "edns0" || o == "trust-ad" })
				}
			}
		}
	}
	if len(servers) == 0 {
		servers = hostServers
		if info != nil {
			servers = []string{info.DNS}
		}
	}
	var b bytes.Buffer
	for _, s := range servers {
		fmt.Fprintf(&b, "nameserver %s\n", s)
	}
	if len(search) > 0 && !slices.Equal(search, []string{"."}) {
		fmt.Fprintf(&b, "search %s\n", strings.Join(search, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(options, " "))
	}
	return b.Bytes()
}
