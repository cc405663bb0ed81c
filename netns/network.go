package netns

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/netns/netproto"
)

// Port is one published port.
type Port = netproto.Port

// Config says what network a container gets. Zero values are the defaults.
type Config struct {
	HelperPath string   // the network process (package netproc)
	HelperArgs []string // its arguments, argv[0] first
	Dir        string   // a folder of the caller's own for the process's sockets
	Subnet     netip.Prefix
	MTU        int // bytes
	Ports      []Port
	LogFile    *os.File // what the process complains to
	Trace      func(step, detail string, took time.Duration)

	// HostLoopback makes the host's 127.0.0.1 the second address of the subnet: 10.0.2.2. Otherwise the host's loopback
	// addresses cannot be reached.
	HostLoopback bool
}

// The network that every container has for itself. Large packets are worth a factor of four: there is no wire behind
// the TAP device that could mind.
var defaultSubnet = netip.MustParsePrefix("10.0.2.0/24")

const defaultMTU = 65520

// Info is a network as it was made.
type Info struct {
	IP, Gateway, DNS string
	PrefixLen        int
	MAC              string
	Ports            []Port
}

// Network is a container's connection. It owns the network process.
type Network struct {
	cfg  Config
	cmd  *exec.Cmd
	conn net.Conn
	dec  *json.Decoder
	done chan struct{}

	began time.Time
}

// Start starts the network process in the caller's network namespace and returns at once; Attach tells of errors. The
// process ends with the caller, with ctx, or by Close.
func Start(ctx context.Context, cfg Config) (*Network, error) {
	if !cfg.Subnet.IsValid() {
		cfg.Subnet = defaultSubnet
	}
	if cfg.Subnet = cfg.Subnet.Masked(); !usable(cfg.Subnet) {
		return nil, failure(errdefs.ErrInvalidArgument, "subnet %s: a container's network needs at least four IPv4 addresses that machines can have", cfg.Subnet)
	}
	if cfg.HostLoopback && cfg.Subnet.Bits() > 29 {
		return nil, failure(errdefs.ErrInvalidArgument, "subnet %s has no third address for the host's loopback; take a /29 or larger", cfg.Subnet)
	}
	if len(cfg.Ports) > 0 && cfg.Dir == "" {
		return nil, failure(errdefs.ErrInvalidArgument, "to publish ports, the network process needs a folder")
	}
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	// Before a process is started for it: without the device there is no network.
	if fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, failure(errdefs.ErrUnavailable, "open /dev/net/tun: %w; an administrator can make it usable with: modprobe tun; chmod 666 /dev/net/tun. Without it there are --network host and --network none", err)
	} else {
		unix.Close(fd)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socketpair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(pair[0]), "network"), os.NewFile(uintptr(pair[1]), "monitor")
	defer ours.Close()
	defer theirs.Close()
	n := &Network{cfg: cfg, done: make(chan struct{}), began: time.Now()}
	if n.conn, err = net.FileConn(ours); err != nil {
		return nil, err
	}
	n.dec = json.NewDecoder(n.conn)
	n.cmd = &exec.Cmd{Path: cfg.HelperPath, Args: cfg.HelperArgs, Dir: cfg.Dir, Stdout: cfg.LogFile, Stderr: cfg.LogFile, ExtraFiles: []*os.File{theirs},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true}}
	if err := n.cmd.Start(); err != nil {
		n.conn.Close()
		return nil, fmt.Errorf("start the network process: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = n.cmd.Process.Kill() })
	go func() {
		_ = n.cmd.Wait()
		stop()
		close(n.done)
	}()
	if err := json.NewEncoder(n.conn).Encode(netproto.Config{Subnet: cfg.Subnet.String(), MTU: cfg.MTU, Ports: cfg.Ports, HostLoopback: cfg.HostLoopback}); err != nil {
		n.Close()
		return nil, fmt.Errorf("speak with the network process: %w", err)
	}
	return n, nil
}

// reply reads an answer of the process.
func (n *Network) reply() (netproto.Reply, error) {
	var r netproto.Reply
	if err := n.dec.Decode(&r); err != nil {
		return r, errors.New("the network process has ended; the container's monitor.log may tell why")
	}
	if r.Error != "" {
		if class := classes[r.Cause]; class != nil {
			return r, failure(class, "%s", r.Error)
		}
		return r, errors.New(r.Error)
	}
	return r, nil
}

// failed is an error of a class (an errdefs sentinel), for programs, whose text is for people and does not name it.
type failed struct {
	class error
	err   error
}

func (f *failed) Error() string   { return f.err.Error() }
func (f *failed) Unwrap() []error { return []error{f.class, f.err} }

func failure(class error, format string, args ...any) error {
	return &failed{class: class, err: fmt.Errorf(format, args...)}
}

var classes = map[netproto.Cause]error{
	netproto.InUse:   errdefs.ErrConflict,
	netproto.Denied:  errdefs.ErrPermissionDenied,
	netproto.Invalid: errdefs.ErrInvalidArgument,
}

// usable says whether a network can have a subnet: room for a gateway and a container, and not of the addresses that
// never leave a machine or are nobody's (RFC 6890).
func usable(p netip.Prefix) bool {
	a := p.Addr()
	return a.Is4() && p.Bits() >= 8 && p.Bits() <= 30 && a.As4()[0] != 0 && !a.IsLoopback() && a.As4()[0] < 224
}

// trace tells of a step that began at a time.
func (n *Network) trace(step, detail string, began time.Time) {
	if n.cfg.Trace != nil {
		n.cfg.Trace(step, detail, time.Since(began))
	}
}

// Attach makes and configures eth0 and lo in the network namespace of process pid, whose user namespace is the caller's
// or below it. Published ports are bound when it returns. One that somebody has is errdefs.ErrConflict, one that only root
// may have ErrPermissionDenied, an address that is not the host's ErrInvalidArgument.
func (n *Network) Attach(pid int) (Info, error) {
	bound, err := n.reply() // to the Config
	if err != nil {
		return Info{}, err
	}
	n.trace("network process ready", "", n.began)
	began := time.Now()
	if err := json.NewEncoder(n.conn).Encode(netproto.Request{Pid: pid}); err != nil {
		return Info{}, fmt.Errorf("speak with the network process: %w", err)
	}
	r, err := n.reply()
	if err != nil {
		return Info{}, err
	}
	n.trace("eth0", r.IP, began)
	gateway := n.cfg.Subnet.Addr().Next()
	return Info{IP: r.IP, PrefixLen: n.cfg.Subnet.Bits(), Gateway: gateway.String(), DNS: gateway.String(), MAC: r.MAC, Ports: bound.Ports}, nil
}

// Done is closed when the process has ended.
func (n *Network) Done() <-chan struct{} { return n.done }

// Close ends the process and waits until it has gone, and its ports are free.
func (n *Network) Close() error {
	n.conn.Close()
	_ = n.cmd.Process.Kill()
	<-n.done
	return nil
}
