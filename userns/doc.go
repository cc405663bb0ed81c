// Package userns gives out ids and user namespaces, and runs one OCI runtime spec in namespaces of its own
// (user_namespaces(7), https://github.com/opencontainers/runtime-spec). It knows nothing of docker.
//
// There are two user namespaces, one below the other. Detect finds the Mapping that the machine allows. StartOuter
// starts a process (a container's monitor) as id 0 of the outer one, in a mount namespace of its own; the process calls
// AwaitOuter first. From there Start runs a container: it makes the spec's mounts in the caller's mount namespace, so
// that they are locked for the container, and then clones a slim helper (package runinit) into the container's own,
// inner user namespace and all the others, which does what can only be done from inside, and executes the command.
// The two speak over one socket (package initproto).
package userns
