package lifecycle

import (
	"net/netip"
	"os"

	"github.com/moss-run/moss/netns"
)

// writeEtc writes the files that are bound over the image's /etc/hosts, /etc/hostname and /etc/resolv.conf, and tells
// which host file goes where. Those that the user binds himself are left to him. They belong to the container's root.
// What the network adds is written in place later: the files are bound by then.
func (m *monitor) writeEtc() (map[string]string, error) {
	hosts, err := hostsFile(m.rec, netip.Addr{})
	if err != nil {
		return nil, err
	}
	resolv, err := m.resolvConf(nil)
	if err != nil {
		return nil, err
	}
	taken := map[string]bool{}
	for _, mt := range m.rec.Mounts {
		taken[mt.Destination] = true
	}
	etc := map[string]string{}
	for name, text := range map[string][]byte{"hosts": hosts, "hostname": []byte(m.rec.Config.Hostname + "\n"), "resolv.conf": resolv} {
		p := m.dir.Etc(name)
		if err := os.WriteFile(p, text, 0o644); err != nil {
			return nil, err
		}
		if err := os.Chmod(p, 0o644); err != nil {
			return nil, err
		}
		if err := os.Chown(p, m.rootID(m.cfg.IDs.InnerUIDs), m.rootID(m.cfg.IDs.InnerGIDs)); err != nil {
			return nil, err
		}
		if !taken["/etc/"+name] {
			etc["/etc/"+name] = p
		}
	}
	return etc, nil
}

// resolvConf is the container's resolver configuration; info is nil without a network process.
func (m *monitor) resolvConf(info *netns.Info) ([]byte, error) {
	h := m.rec.HostConfig
	o := netns.Resolver{Search: h.DNSSearch, Options: h.DNSOptions}
	for _, a := range h.DNS {
		o.Servers = append(o.Servers, a.String())
	}
	return netns.ResolvConf(info, o)
}

// rewrite replaces a file's text and keeps its inode, which is bound into the container.
func rewrite(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(text); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}
