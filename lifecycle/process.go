package lifecycle

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Process names a process so that it cannot be mistaken for another: a pid alone is reused, and means nothing on
// another host or after a reboot.
type Process struct {
	Pid   int
	Start uint64 // field 22 of /proc/pid/stat, clock ticks since boot
	Boot  string // /proc/sys/kernel/random/boot_id
	Host  string
}

// Self names the calling process.
func Self() (Process, error) { return nameProcess(os.Getpid()) }

func nameProcess(pid int) (Process, error) {
	start, err := startTime(pid)
	if err != nil {
		return Process{}, err
	}
	return Process{Pid: pid, Start: start, Boot: bootID(), Host: hostName()}, nil
}

// here says whether p was started on this host, this boot.
func (p Process) here() bool { return p.Host == hostName() && p.Boot == bootID() }

// elsewhere says whether p belongs to another host, of whose processes nothing can be known from here.
func (p Process) elsewhere() bool { return p.Host != "" && p.Host != hostName() }

// alive says whether p still runs. It is false for processes of another host or boot.
func (p Process) alive() bool {
	if p.Pid <= 0 || !p.here() {
		return false
	}
	start, err := startTime(p.Pid)
	return err == nil && start == p.Start
}

// startTime reads field 22 of /proc/pid/stat (proc_pid_stat(5)). A zombie counts as gone.
func startTime(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The second field, the command in parentheses, may hold blanks and parentheses itself.
	i := bytes.LastIndexByte(b, ')')
	f := strings.Fields(string(b[i+1:]))
	if i < 0 || len(f) < 20 {
		return 0, fmt.Errorf("/proc/%d/stat: unexpected form", pid)
	}
	if f[0] == "Z" || f[0] == "X" {
		return 0, fmt.Errorf("process %d has ended", pid)
	}
	return strconv.ParseUint(f[19], 10, 64)
}

var bootID = sync.OnceValue(func() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
})

var hostName = sync.OnceValue(func() string {
	h, _ := os.Hostname()
	return h
})
