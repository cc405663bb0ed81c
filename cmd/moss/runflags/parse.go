package runflags

import (
	"bufio"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/sys/signal"
	"github.com/moby/term"
)

// Parsed is what the user wants, before the image has had its say.
type Parsed struct {
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig

	Name, Platform, CIDFile, Pull  string
	Quiet, Detach, SigProxy, Trace bool
	DetachKeys                     []byte
	ResetEntrypoint                bool // --entrypoint "": the image's is not used
	Warnings                       []string
}

var hostnameRule = regexp.MustCompile(`^[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?(\.[a-zA-Z0-9]([a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?)*$`)

// Parse reads everything into docker's types. args are the command behind the image.
func (f *Flags) Parse(image string, args []string) (*Parsed, error) {
	p := &Parsed{Name: f.name, Platform: f.platform, CIDFile: f.cidfile, Pull: f.pull, Quiet: f.quiet, Detach: f.detach, SigProxy: f.sigProxy, Trace: f.trace}
	if p.Platform == "" {
		p.Platform = os.Getenv("DOCKER_DEFAULT_PLATFORM")
	}
	if !slices.Contains([]string{"always", "missing", "never"}, f.pull) {
		return nil, fmt.Errorf("invalid pull option: '%s': must be one of \"always\", \"missing\" or \"never\"", f.pull)
	}
	keys := f.detachKeys
	if keys == "" {
		keys = "ctrl-p,ctrl-q"
	}
	var err error
	if p.DetachKeys, err = term.ToBytes(keys); err != nil {
		return nil, fmt.Errorf("invalid detach keys (%s): %w", keys, err)
	}
	if p.Config, err = f.config(image, args, p); err != nil {
		return nil, err
	}
	if p.HostConfig, err = f.hostConfig(p); err != nil {
		return nil, err
	}
	ports, bindings, err := parsePorts(f.publish, f.expose)
	if err != nil {
		return nil, err
	}
	if len(ports) > 0 {
		p.Config.ExposedPorts = ports
	}
	if p.HostConfig.NetworkMode.IsHost() && len(bindings) > 0 {
		p.Warnings = append(p.Warnings, "Published ports are discarded when using host network mode")
		bindings = nil
	}
	p.HostConfig.PortBindings = bindings
	p.Networking = &network.NetworkingConfig{}
	return p, nil
}

func (f *Flags) config(image string, args []string, p *Parsed) (*container.Config, error) {
	c := &container.Config{Image: image, Cmd: args, Hostname: f.hostname, Domainname: f.domainname, User: f.user, WorkingDir: f.workdir,
		Tty: f.tty, OpenStdin: f.stdin, StopSignal: f.stopSignal, Labels: map[string]string{}}
	if f.workdir != "" && !path.IsAbs(f.workdir) {
		return nil, fmt.Errorf("the working directory '%s' is invalid, it needs to be an absolute path", f.workdir)
	}
	if f.hostname != "" && (!hostnameRule.MatchString(f.hostname) || len(f.hostname) > 63) {
		return nil, fmt.Errorf("invalid hostname: %q", f.hostname)
	}
	if f.stopSignal != "" {
		if _, err := signal.ParseSignal(f.stopSignal); err != nil {
			return nil, err
		}
	}
	if f.set.Changed("stop-timeout") {
		c.StopTimeout = &f.stopTimeout
	}
	if f.set.Changed("entrypoint") {
		if f.entrypoint == "" {
			p.ResetEntrypoint = true
		} else {
			c.Entrypoint = []string{f.entrypoint}
		}
	}
	if f.detach && len(f.attach) > 0 {
		return nil, errors.New("conflicting options: cannot specify both --attach and --detach")
	}
	for _, a := range f.attach {
		switch strings.ToLower(a) {
		case "stdin":
			c.AttachStdin = true
		case "stdout":
			c.AttachStdout = true
		case "stderr":
			c.AttachStderr = true
		default:
			return nil, fmt.Errorf("invalid argument %q for \"-a, --attach\" flag: valid streams are STDIN, STDOUT and STDERR", a)
		}
	}
	if len(f.attach) == 0 && !f.detach {
		c.AttachStdout, c.AttachStderr, c.AttachStdin = true, true, f.stdin
	}
	c.StdinOnce = c.OpenStdin && c.AttachStdin

	var err error
	if c.Env, err = environment(f.envFile, f.env); err != nil {
		return nil, err
	}
	lines, err := fromFiles(f.labelFiles, false)
	if err != nil {
		return nil, err
	}
	for _, l := range append(lines, f.labels...) {
		k, v, _ := strings.Cut(l, "=")
		if k == "" {
			return nil, fmt.Errorf("invalid label format: %q", l)
		}
		c.Labels[k] = v
	}
	return c, nil
}

// environment joins files and flags. A name without a value takes the caller's, and is left out when he has none.
func environment(files, flags []string) ([]string, error) {
	all, err := fromFiles(files, true)
	if err != nil {
		return nil, err
	}
	all = append(all, flags...)
	var env []string
	for _, kv := range all {
		name, _, ok := strings.Cut(kv, "=")
		if name == "" {
			return nil, fmt.Errorf("invalid environment variable: %s", kv)
		}
		if !ok {
			v, set := os.LookupEnv(name)
			if !set {
				continue
			}
			kv = name + "=" + v
		}
		if i := slices.IndexFunc(env, func(e string) bool { return strings.HasPrefix(e, name+"=") }); i >= 0 {
			env[i] = kv
			continue
		}
		env = append(env, kv)
	}
	return env, nil
}

// fromFiles reads NAME=value lines; empty ones and comments do not count.
func fromFiles(files []string, env bool) ([]string, error) {
	var lines []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		s := bufio.NewScanner(f)
		s.Buffer(nil, 1<<20)
		for n := 1; s.Scan(); n++ {
			line := strings.TrimLeft(s.Text(), " \t")
			if n == 1 {
				line = strings.TrimPrefix(line, "\ufeff")
			}
			if line == "" || strings.HasPrefix(line, "#") {
				continue
			}
			key, _, _ := strings.Cut(line, "=")
			if env && (key == "" || strings.ContainsAny(key, " \t")) {
				f.Close()
				return nil, fmt.Errorf("invalid env file (%s): variable '%s' contains whitespaces", name, key)
			}
			lines = append(lines, line)
		}
		err = s.Err()
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return lines, nil
}

func (f *Flags) hostConfig(p *Parsed) (*container.HostConfig, error) {
	h := &container.HostConfig{AutoRemove: f.rm, Privileged: f.privileged, ReadonlyRootfs: f.readOnly, ContainerIDFile: f.cidfile,
		DNSSearch: f.dnsSearch, DNSOptions: f.dnsOption, ShmSize: int64(f.shmSize), NetworkMode: "bridge",
		LogConfig: container.LogConfig{Type: "json-file", Config: map[string]string{}}, RestartPolicy: container.RestartPolicy{Name: "no"},
		IpcMode: "private", CgroupnsMode: "private"}
	if f.network != "" && f.network != "default" {
		h.NetworkMode = container.NetworkMode(f.network)
	}
	if h.ShmSize == 0 {
		h.ShmSize = 64 << 20
	}
	if h.ShmSize < 0 {
		return nil, errors.New("SHM size can not be less than 0")
	}
	if f.set.Changed("init") {
		h.Init = &f.init
	}
	for _, list := range []struct {
		flag string
		from []string
		to   *[]string
	}{{"cap-add", f.capAdd, &h.CapAdd}, {"cap-drop", f.capDrop, &h.CapDrop}} {
		for _, c := range list.from {
			*list.to = append(*list.to, strings.ToUpper(c))
		}
	}
	var err error
	if h.SecurityOpt, err = securityOptions(f.securityOpt); err != nil {
		return nil, err
	}
	for _, s := range f.dns {
		a, err := netip.ParseAddr(strings.TrimSpace(s))
		if err != nil {
			return nil, fmt.Errorf("invalid argument %q for \"--dns\" flag: %s is not an ip address", s, s)
		}
		h.DNS = append(h.DNS, a)
	}
	for _, s := range f.addHost {
		name, addr, ok := strings.Cut(s, ":")
		if i := strings.Index(s, "="); i > 0 {
			name, addr, ok = s[:i], s[i+1:], true
		}
		if !ok || name == "" {
			return nil, fmt.Errorf("bad format for add-host: %q", s)
		}
		if _, err := netip.ParseAddr(strings.Trim(addr, "[]")); err != nil && addr != "host-gateway" {
			return nil, fmt.Errorf("invalid IP address in add-host: %q", addr)
		}
		h.ExtraHosts = append(h.ExtraHosts, name+":"+addr)
	}
	for _, s := range f.ulimits {
		u, err := units.ParseUlimit(s)
		if err != nil {
			return nil, fmt.Errorf("invalid argument %q for \"--ulimit\" flag: %w", s, err)
		}
		h.Ulimits = append(h.Ulimits, u)
	}
	for _, s := range f.sysctls {
		k, v, ok := strings.Cut(s, "=")
		if !ok || k == "" {
			return nil, fmt.Errorf("invalid argument %q for \"--sysctl\" flag: a sysctl has the form name=value", s)
		}
		if h.Sysctls == nil {
			h.Sysctls = map[string]string{}
		}
		h.Sysctls[k] = v
	}
	for _, s := range f.annotations {
		k, v, _ := strings.Cut(s, "=")
		if h.Annotations == nil {
			h.Annotations = map[string]string{}
		}
		h.Annotations[k] = v
	}
	for _, s := range f.tmpfs {
		dst, opts, _ := strings.Cut(s, ":")
		if !path.IsAbs(dst) {
			return nil, fmt.Errorf("invalid mount path: '%s' mount path must be absolute", dst)
		}
		if h.Tmpfs == nil {
			h.Tmpfs = map[string]string{}
		}
		h.Tmpfs[dst] = opts
	}
	for _, v := range f.volumes {
		bind, anonymous, err := parseVolume(v)
		if err != nil {
			return nil, err
		}
		if anonymous != "" {
			if p.Config.Volumes == nil {
				p.Config.Volumes = map[string]struct{}{}
			}
			p.Config.Volumes[anonymous] = struct{}{}
			continue
		}
		h.Binds = append(h.Binds, bind)
	}
	for _, m := range f.mounts {
		mt, err := parseMount(m)
		if err != nil {
			return nil, fmt.Errorf("invalid argument %q for \"--mount\" flag: %w", m, err)
		}
		h.Mounts = append(h.Mounts, mt)
	}
	return h, nil
}

// securityOptions reads seccomp profiles from their files: the record holds the profile, as docker's does.
func securityOptions(opts []string) ([]string, error) {
	var out []string
	for _, o := range opts {
		k, v, ok := strings.Cut(o, "=")
		if !ok && k != "no-new-privileges" {
			if k, v, ok = strings.Cut(o, ":"); !ok {
				return nil, fmt.Errorf("invalid --security-opt: %q", o)
			}
		}
		switch k {
		case "no-new-privileges":
			if ok {
				if _, err := strconv.ParseBool(v); err != nil {
					return nil, fmt.Errorf("invalid --security-opt 2: %q", o)
				}
			}
		case "seccomp":
			if v != "unconfined" && v != "builtin" {
				b, err := os.ReadFile(v)
				if err != nil {
					return nil, fmt.Errorf("opening seccomp profile (%s) failed: %w", v, err)
				}
				o = "seccomp=" + string(b)
			} else {
				o = "seccomp=" + v
			}
		default:
			return nil, fmt.Errorf("--security-opt %s is not supported by moss yet", k)
		}
		out = append(out, o)
	}
	return out, nil
}

// absolute makes ./x and ../x absolute, which is how -v knows a folder from a volume's name.
func absolute(src string) (string, error) {
	if src == "." || src == ".." || strings.HasPrefix(src, "./") || strings.HasPrefix(src, "../") {
		return filepath.Abs(src)
	}
	return src, nil
}
