// Package netproto is what the monitor and the network process say to each other: one JSON object a line, on a unix
// socket that the process inherits as descriptor 3. The process ends when the socket does.
package netproto

// Fd is the process's end of the socket.
const Fd = 3

// Config is the first line: what the network looks like.
type Config struct {
	Subnet string // 10.0.2.0/24
	MTU    int
	Ports  []Port

	HostLoopback bool // the second address of the subnet is the host's 127.0.0.1
}

// Port is one published port. HostPort 0 asks for a free one. HostIP "" is every address, IPv6 included.
type Port struct {
	HostIP        string `json:",omitempty"`
	HostPort      uint16
	ContainerPort uint16
	Proto         string // tcp or udp
}

// Cause tells errors apart that the monitor's caller may want to.
type Cause string

// The causes.
const (
	InUse   Cause = "in use"  // a port that somebody else has
	Denied  Cause = "denied"  // a port that only root may have
	Invalid Cause = "invalid" // an address that is not the host's
)

// Request asks to attach the namespace of a process.
type Request struct{ Pid int }

// Reply answers Config and Request.
type Reply struct {
	Error string `json:",omitempty"`
	Cause Cause  `json:",omitempty"` // what sort of error it is
	Ports []Port `json:",omitempty"` // as bound
	IP    string `json:",omitempty"`
	MAC   string `json:",omitempty"`
}
