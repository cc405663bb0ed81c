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
}

// Start starts the network process in the caller's network namespace and returns at once; Attach tells of errors. The
// process ends with the caller.
func Start(ctx context.Context, cfg Config) (*Network, error) {
	if !cfg.Subnet.IsValid() {
		cfg.Subnet = defaultSubnet
	}
	if cfg.MTU == 0 {
		cfg.MTU = defaultMTU
	}
	// Before a process is started for it: without the device there is no network.
	if fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("%w: open /dev/net/tun: %w; an administrator can make it usable with: modprobe tun; chmod 666 /dev/net/tun. Without it there are --network host and --network none", errdefs.ErrUnavailable, err)
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
	n := &Network{cfg: cfg, done: make(chan struct{})}
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
	go func() {
		_ = n.cmd.Wait()
		close(n.done)
	}()
	if err := json.NewEncoder(n.conn).Encode(netproto.Config{Subnet: cfg.Subnet.String(), MTU: cfg.MTU, Ports: cfg.Ports}); err != nil {
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
		err := errors.New(r.Error)
		if r.InUse {
			return r, fmt.Errorf("%w: %w", errdefs.ErrConflict, err)
		}
		return r, err
	}
	return r, nil
}

// Attach makes and configures eth0 and lo in the network namespace of process pid, whose user namespace is the caller's
// or below it. Published ports are bound when it returns; one that cannot be had is errdefs.ErrConflict.
func (n *Network) Attach(pid int) (Info, error) {
	bound, err := n.reply() // to the Config
	if err != nil {
		return Info{}, err
	}
	if err := json.NewEncoder(n.conn).Encode(netproto.Request{Pid: pid}); err != nil {
		return Info{}, fmt.Errorf("speak with the network process: %w", err)
	}
	r, err := n.reply()
	if err != nil {
		return Info{}, err
	}
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
