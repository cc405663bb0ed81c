package runflags

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// parse reads a command line as run would: flags, an image, a command.
func parse(t *testing.T, args ...string) (*Parsed, error) {
	t.Helper()
	set := pflag.NewFlagSet("run", pflag.ContinueOnError)
	set.SetInterspersed(false)
	f := Add(set, Run)
	if err := set.Parse(append(args, "img", "cmd", "-x")); err != nil {
		return nil, err
	}
	return f.Parse(set.Arg(0), set.Args()[1:])
}

func TestFlagsBecomeDockersTypes(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("FROM_CALLER", "here")
	os.Unsetenv("NOT_SET")
	envFile := filepath.Join(dir, "env")
	if err := os.WriteFile(envFile, []byte("# comment\nA=file\n\nFROM_CALLER\nNOT_SET\nB=two words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args  []string
		check func(p *Parsed) bool
	}{
		"the command is left alone": {nil, func(p *Parsed) bool {
			return slices.Equal(p.Config.Cmd, []string{"cmd", "-x"}) && p.Config.Image == "img"
		}},
		"streams are attached in front":   {nil, func(p *Parsed) bool { return p.Config.AttachStdout && p.Config.AttachStderr && !p.Config.AttachStdin }},
		"-i attaches stdin":               {[]string{"-i"}, func(p *Parsed) bool { return p.Config.AttachStdin && p.Config.OpenStdin && p.Config.StdinOnce }},
		"-a stderr attaches nothing else": {[]string{"-a", "stderr"}, func(p *Parsed) bool { return !p.Config.AttachStdout && p.Config.AttachStderr }},
		"-d attaches nothing":             {[]string{"-dit"}, func(p *Parsed) bool { return p.Detach && !p.Config.AttachStdout && p.Config.Tty && p.Config.OpenStdin }},
		"-e overrides an env file": {[]string{"--env-file", envFile, "-e", "A=flag"}, func(p *Parsed) bool {
			return slices.Equal(p.Config.Env, []string{"A=flag", "FROM_CALLER=here", "B=two words"})
		}},
		"a bare -e takes the caller's": {[]string{"-e", "FROM_CALLER", "-e", "NOT_SET"}, func(p *Parsed) bool { return slices.Equal(p.Config.Env, []string{"FROM_CALLER=here"}) }},
		"a relative folder is made absolute": {[]string{"-v", "./x:/y:ro"}, func(p *Parsed) bool {
			return strings.HasPrefix(p.HostConfig.Binds[0], "/") && strings.HasSuffix(p.HostConfig.Binds[0], "/x:/y:ro")
		}},
		"a name is a volume":                  {[]string{"-v", "name:/y"}, func(p *Parsed) bool { return p.HostConfig.Binds[0] == "name:/y" }},
		"a path alone is an anonymous volume": {[]string{"-v", "/y"}, func(p *Parsed) bool { _, ok := p.Config.Volumes["/y"]; return ok && len(p.HostConfig.Binds) == 0 }},
		"--mount type=bind": {[]string{"--mount", "type=bind,source=/a,target=/b,readonly,bind-propagation=rslave"}, func(p *Parsed) bool {
			m := p.HostConfig.Mounts[0]
			return m.Type == mount.TypeBind && m.ReadOnly && m.BindOptions.Propagation == "rslave"
		}},
		"--mount type=tmpfs": {[]string{"--mount", "type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1770"}, func(p *Parsed) bool {
			o := p.HostConfig.Mounts[0].TmpfsOptions
			return o.SizeBytes == 1<<20 && o.Mode == 0o1770
		}},
		"-p with everything": {[]string{"-p", "127.0.0.1:8080:80/udp"}, func(p *Parsed) bool {
			b := p.HostConfig.PortBindings[network.MustParsePort("80/udp")][0]
			return b.HostPort == "8080" && b.HostIP.String() == "127.0.0.1"
		}},
		"-p of a range": {[]string{"-p", "8000-8002:80-82"}, func(p *Parsed) bool { return len(p.HostConfig.PortBindings) == 3 && len(p.Config.ExposedPorts) == 3 }},
		"-p with an IPv6 address": {[]string{"-p", "[::1]:8080:80"}, func(p *Parsed) bool {
			return p.HostConfig.PortBindings[network.MustParsePort("80/tcp")][0].HostIP.String() == "::1"
		}},
		"ports are nothing on the host's network": {[]string{"--network", "host", "-p", "8080:80"}, func(p *Parsed) bool { return len(p.HostConfig.PortBindings) == 0 && len(p.Warnings) == 1 }},
		"--entrypoint with nothing resets":        {[]string{"--entrypoint", ""}, func(p *Parsed) bool { return p.ResetEntrypoint && len(p.Config.Entrypoint) == 0 }},
		"sizes have units":                        {[]string{"--shm-size", "1g"}, func(p *Parsed) bool { return p.HostConfig.ShmSize == 1<<30 }},
		"/dev/shm is 64 MB":                       {nil, func(p *Parsed) bool { return p.HostConfig.ShmSize == 64<<20 }},
		"ulimits":                                 {[]string{"--ulimit", "nofile=10:20"}, func(p *Parsed) bool { u := p.HostConfig.Ulimits[0]; return u.Soft == 10 && u.Hard == 20 }},
		"an add-host with an IPv6 address":        {[]string{"--add-host", "h:::1"}, func(p *Parsed) bool { return p.HostConfig.ExtraHosts[0] == "h:::1" }},
		"docker's own defaults may be given":      {[]string{"--restart=no", "--log-driver", "json-file", "--oom-kill-disable=false", "-m", "0"}, func(p *Parsed) bool { return true }},
		"detach keys":                             {[]string{"--detach-keys", "ctrl-a,x"}, func(p *Parsed) bool { return string(p.DetachKeys) == "\x01x" }},
		"a seccomp profile's text is kept":        {[]string{"--security-opt", "seccomp=" + envFile}, func(p *Parsed) bool { return strings.HasPrefix(p.HostConfig.SecurityOpt[0], "seccomp=# comment") }},
	} {
		p, err := parse(t, c.args...)
		if err != nil || !c.check(p) {
			t.Errorf("%s: %v %+v", name, err, p)
		}
	}
}

func TestWrongFlagsAreRefusedInDockersWords(t *testing.T) {
	for args, want := range map[string]string{
		"--nosuch":                               "unknown flag: --nosuch",
		"--memory 5m":                            "flag --memory is not supported by moss yet",
		"-P":                                     "flag --publish-all is not supported by moss yet",
		"--restart always":                       "flag --restart is not supported by moss yet",
		"--gpus all":                             "flag --gpus is not supported by moss yet",
		"--health-cmd true":                      "flag --health-cmd is not supported by moss yet",
		"-d -a stdout":                           "conflicting options: cannot specify both --attach and --detach",
		"-a stdnil":                              "valid streams are STDIN, STDOUT and STDERR",
		"-w relative":                            "the working directory 'relative' is invalid, it needs to be an absolute path",
		"--pull sometimes":                       "invalid pull option: 'sometimes': must be one of",
		"-h under_score":                         `invalid hostname: "under_score"`,
		"-v a:b:c:d":                             "invalid volume specification: 'a:b:c:d'",
		"-v /a:b":                                "mount path must be absolute",
		"-v /a:/":                                "destination can't be '/'",
		"-v /a:/b:odd":                           "invalid mode: odd",
		"-p 1:2:3:4":                             "invalid argument",
		"-p 99999:80":                            "invalid argument",
		"--expose x":                             "invalid range format for --expose",
		"--mount type=bind,dst=/x":               "source is required for type bind",
		"--mount type=image,src=a,dst=/x":        "not supported by moss yet",
		"--mount type=bind,src=/a,dst=/x,odd=1":  "unexpected key 'odd'",
		"--mount type=tmpfs,src=/a,dst=/x":       "source must not be specified for type tmpfs",
		"--mount type=volume,dst=x":              "mount path must be absolute",
		"--tmpfs rel":                            "mount path must be absolute",
		"--dns nowhere":                          "nowhere is not an ip address",
		"--add-host noaddress":                   `bad format for add-host: "noaddress"`,
		"--add-host h:300.1.1.1":                 `invalid IP address in add-host: "300.1.1.1"`,
		"--ulimit odd":                           "invalid argument",
		"--sysctl odd":                           "has the form name=value",
		"--security-opt apparmor=x":              "--security-opt apparmor is not supported by moss yet",
		"--security-opt seccomp=/nosuch/profile": "opening seccomp profile (/nosuch/profile) failed",
		"--security-opt no-new-privileges=maybe": "invalid --security-opt",
		"--env-file /nosuch":                     "no such file or directory",
		"-e =x":                                  "invalid environment variable",
		"--stop-signal NOSUCH":                   "signal: NOSUCH",
		"--detach-keys ctrl-odd":                 "invalid detach keys",
		"--shm-size x":                           "invalid",
	} {
		if p, err := parse(t, strings.Fields(args)...); err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(want)) {
			t.Errorf("%s: %v %+v", args, err, p)
		}
	}
}

func TestAnImagesSettingsFillWhatTheUserLeavesOpen(t *testing.T) {
	image := func() *container.Config {
		return &container.Config{Entrypoint: []string{"/ep"}, Cmd: []string{"imgcmd"}, Env: []string{"A=img", "B=img"}, User: "u", WorkingDir: "/w",
			Labels: map[string]string{"l": "img", "m": "img"}, Volumes: map[string]struct{}{"/v": {}}, StopSignal: "INT",
			ExposedPorts: network.PortSet{network.MustParsePort("80/tcp"): {}}}
	}
	merge := func(p *Parsed) *container.Config {
		c, err := Merge(image(), p)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	user := func(c container.Config) *Parsed {
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		return &Parsed{Config: &c}
	}
	c := merge(user(container.Config{}))
	if !slices.Equal(c.Entrypoint, []string{"/ep"}) || !slices.Equal(c.Cmd, []string{"imgcmd"}) || c.User != "u" || c.WorkingDir != "/w" || c.StopSignal != "INT" || len(c.ExposedPorts) != 1 || len(c.Volumes) != 1 {
		t.Errorf("nothing of the user's: %+v", c)
	}
	c = merge(user(container.Config{Cmd: []string{"mine"}, Env: []string{"B=mine"}, Labels: map[string]string{"l": "mine"}}))
	if !slices.Equal(c.Entrypoint, []string{"/ep"}) || !slices.Equal(c.Cmd, []string{"mine"}) || !slices.Equal(c.Env, []string{"B=mine", "A=img"}) || c.Labels["l"] != "mine" || c.Labels["m"] != "img" {
		t.Errorf("the user's command: %+v", c)
	}
	if c = merge(user(container.Config{Entrypoint: []string{"/mine"}})); len(c.Cmd) != 0 || !slices.Equal(c.Entrypoint, []string{"/mine"}) {
		t.Errorf("the user's entrypoint: %+v", c)
	}
	p := user(container.Config{Cmd: []string{"mine"}})
	p.ResetEntrypoint = true
	if c = merge(p); len(c.Entrypoint) != 0 || !slices.Equal(c.Cmd, []string{"mine"}) {
		t.Errorf("an entrypoint reset: %+v", c)
	}
	if _, err := Merge(&container.Config{}, user(container.Config{})); err == nil || err.Error() != "no command specified" {
		t.Errorf("nothing to run: %v", err)
	}
}

func FuzzVolumesMountsAndPorts(f *testing.F) {
	for _, s := range []string{"/a:/b:ro", "a:b:c:d", "type=bind,src=/a,dst=/b", "127.0.0.1:1-3:1-3/udp", `"a,b"`, ":::", "[::1]:80:80"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		_, _, _ = parseVolume(s)
		_, _ = parseMount(s)
		_, _, _ = parsePorts([]string{s}, []string{s})
	})
}
