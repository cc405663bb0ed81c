// Package lifecycle is the life of containers: their records, the moves between their states, and the monitor beside
// each one that runs.
//
// A container is a folder below root/containers, named by its id. It holds config.json (what the container is, in
// docker's own types; written once), state.json (what it is doing; replaced as a whole on each change), the writable
// layer (upper, work), the log, and lock. The lock is held by the container's monitor for as long as it lives.
// A state is believed only together with the host, boot and process that it names; anything else is repaired when read.
//
// Engine is the caller's side: create, start, list, inspect, logs, wait, stop, kill, remove. It starts the monitor
// (package lifecycle/monitor, a process of its own) and speaks with it over one unix socket in frames (wire.go).
// The monitor mounts the root file system, turns docker's description into an OCI runtime spec, has package userns
// run it, keeps the log, and writes down how it ended.
package lifecycle
