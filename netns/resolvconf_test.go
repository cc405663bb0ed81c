package netns

import "testing"

func TestResolvConf(t *testing.T) {
	const host = "# by resolvconf\nnameserver 127.0.0.53\nnameserver fe80::1%eth0\nnameserver nonsense\nsearch a.example b.example\noptions edns0 trust-ad ndots:2\n"
	bridge := &Info{DNS: "10.0.2.1"}
	for _, c := range []struct {
		what, host string
		info       *Info
		user       Resolver
		want       string
	}{
		{"the gateway asks the host's, and domains and options stay", host, bridge, Resolver{},
			"nameserver 10.0.2.1\nsearch a.example b.example\noptions ndots:2\n"},
		{"the host's network has the host's name servers", host, nil, Resolver{},
			"nameserver 127.0.0.53\nnameserver fe80::1%eth0\nsearch a.example b.example\noptions edns0 trust-ad ndots:2\n"},
		{"what the user gives comes instead", host, bridge, Resolver{Servers: []string{"192.0.2.53"}, Search: []string{"c.example"}, Options: []string{"timeout:1"}},
			"nameserver 192.0.2.53\nsearch c.example\noptions timeout:1\n"},
		{"a single point means no search domains", host, bridge, Resolver{Search: []string{"."}},
			"nameserver 10.0.2.1\noptions ndots:2\n"},
		{"the last of domain and search counts", "search a.example\ndomain b.example\n", bridge, Resolver{},
			"nameserver 10.0.2.1\nsearch b.example\n"},
		{"no file", "", bridge, Resolver{}, "nameserver 10.0.2.1\n"},
		{"lines cut short", "nameserver\nsearch\noptions\n", bridge, Resolver{}, "nameserver 10.0.2.1\n"},
	} {
		if got := string(resolvConf([]byte(c.host), c.info, c.user)); got != c.want {
			t.Errorf("%s:\n%s\nwanted:\n%s", c.what, got, c.want)
		}
	}
}
