// Package runflags turns the flags of run and create into docker's own types: what a container is (Config) and how it
// is run (HostConfig). A flag of docker's that moss does not have yet is known here, and refused by name.
package runflags

import (
	"github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// Command is which of the two the flags are for.
type Command int

const (
	Run Command = iota
	Create
)

// Flags holds what pflag has read.
type Flags struct {
	set *pflag.FlagSet
	cmd Command

	attach, env, envFile, volumes, mounts, publish, expose, tmpfs, labels, labelFiles  []string
	capAdd, capDrop, securityOpt, dns, dnsSearch, dnsOption, addHost, ulimits, sysctls []string
	annotations                                                                        []string

	stdin, tty, detach, rm, readOnly, quiet, init, privileged, sigProxy, trace bool

	name, workdir, user, entrypoint, hostname, domainname, network, pull, platform, cidfile, stopSignal, detachKeys string

	shmSize     sizeValue
	stopTimeout int
}

// sizeValue is a size as docker writes it: 64m.
type sizeValue int64

func (v *sizeValue) Set(s string) error {
	n, err := units.RAMInBytes(s)
	*v = sizeValue(n)
	return err
}
func (v *sizeValue) Type() string   { return "bytes" }
func (v *sizeValue) String() string { return units.BytesSize(float64(*v)) }

// Add registers the flags.
func Add(set *pflag.FlagSet, cmd Command) *Flags {
	f := &Flags{set: set, cmd: cmd}
	list := func(p *[]string, name, short, usage string) { set.StringArrayVarP(p, name, short, nil, usage) }
	list(&f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR")
	list(&f.env, "env", "e", "Set environment variables")
	list(&f.envFile, "env-file", "", "Read in a file of environment variables")
	list(&f.volumes, "volume", "v", "Bind mount a volume")
	list(&f.mounts, "mount", "", "Attach a filesystem mount to the container (bind, volume, tmpfs)")
	list(&f.publish, "publish", "p", "Publish a container's port(s) to the host")
	list(&f.expose, "expose", "", "Expose a port or a range of ports")
	list(&f.tmpfs, "tmpfs", "", "Mount a tmpfs directory")
	list(&f.labels, "label", "l", "Set meta data on a container")
	list(&f.labelFiles, "label-file", "", "Read in a line delimited file of labels")
	list(&f.capAdd, "cap-add", "", "Add Linux capabilities")
	list(&f.capDrop, "cap-drop", "", "Drop Linux capabilities")
	list(&f.securityOpt, "security-opt", "", "Security Options (seccomp=, no-new-privileges)")
	list(&f.dns, "dns", "", "Set custom DNS servers")
	list(&f.dnsSearch, "dns-search", "", "Set custom DNS search domains")
	list(&f.dnsOption, "dns-option", "", "Set DNS options")
	list(&f.addHost, "add-host", "", "Add a custom host-to-IP mapping (host:ip)")
	list(&f.ulimits, "ulimit", "", "Ulimit options")
	list(&f.sysctls, "sysctl", "", "Sysctl options")
	list(&f.annotations, "annotation", "", "Add an annotation to the container")

	set.BoolVarP(&f.stdin, "interactive", "i", false, "Keep STDIN open even if not attached")
	set.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	set.BoolVar(&f.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	set.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	set.BoolVarP(&f.quiet, "quiet", "q", false, "Suppress the pull output")
	set.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	set.BoolVar(&f.privileged, "privileged", false, "Give the container all that the user namespace can give")

	str := func(p *string, name, short, usage string) { set.StringVarP(p, name, short, "", usage) }
	str(&f.name, "name", "", "Assign a name to the container")
	str(&f.workdir, "workdir", "w", "Working directory inside the container")
	str(&f.user, "user", "u", "Username or UID (format: <name|uid>[:<group|gid>])")
	str(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	str(&f.hostname, "hostname", "h", "Container host name")
	str(&f.domainname, "domainname", "", "Container NIS domain name")
	str(&f.network, "network", "", "Connect a container to a network (bridge, host, none)")
	str(&f.network, "net", "", "")
	_ = set.MarkHidden("net")
	set.StringVar(&f.pull, "pull", "missing", "Pull image before running (\"always\", \"missing\", \"never\")")
	str(&f.platform, "platform", "", "Set platform if server is multi-platform capable")
	str(&f.cidfile, "cidfile", "", "Write the container ID to the file")
	str(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	set.Var(&f.shmSize, "shm-size", "Size of /dev/shm")
	set.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	if cmd == Run {
		set.BoolVarP(&f.detach, "detach", "d", false, "Run container in background and print container ID")
		set.BoolVar(&f.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
		str(&f.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
		set.BoolVar(&f.trace, "trace", false, "Print each step and how long it took")
	}
	addRefused(set)
	return f
}
