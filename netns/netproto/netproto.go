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
}

// Port is one published port. HostPort 0 asks for a free one. HostIP "" is every address, IPv6 included.
type Port struct {
	HostIP        string `json:",omitempty"`
	HostPort      uint16
	ContainerPort uint16
	Proto         string // tcp or udp
}

// Request asks to attach the namespace of a process.
type Request struct{ Pid int }

// Reply answers Config and Request.
type Reply struct {
	Error string `json:",omitempty"`
	InUse bool   `json:",omitempty"` // the error is a port that somebody else has
	Ports []Port `json:",omitempty"` // as bound
	IP    string `json:",omitempty"`
	MAC   string `json:",omitempty"`
}
