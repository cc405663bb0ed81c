// Package netns connects a container's network namespace (network_namespaces(7)) to the world without root.
//
// Start starts a network process (package netproc, a program of its own, because the network stack in it is large and
// slow to start) which listens on published ports at once. Attach hands it a container's namespace: the process makes
// eth0 there, a TAP device whose other end is a network stack in user space (gvisor-tap-vsock's, as rootlesskit wires
// it), which opens the container's connections as ordinary sockets of the host. Ports come in through rootlesskit's
// builtin port driver. A resolver at the gateway asks the host's for each name. ResolvConf writes the container's
// resolv.conf.
//
// A filter stands before the stack, because what the stack is sent it dials: the host's loopback addresses cannot be
// reached from a container (unless Config.HostLoopback says so), nor can broadcast and multicast addresses. Pings are
// answered by the gateway alone, and there is no IPv6. A server sees connections to published ports come from inside the
// container, not the client's address.
package netns
