// Package inside tells, from within a container, what has been made for it: it is the program of the image
// builtin:hello. Every line is read off the live system (proc(5), capabilities(7), namespaces(7)); nothing is handed to
// it but MOSS_HOST_NS, the names of the starter's namespaces, which cannot be seen from inside.
package inside

import (
	"fmt"
	"io"
	"math/bits"
	"net"
	"os"
	"sort"
	"strconv"
	"strings"
)

// HostNamespaces is the environment variable with the starter's namespaces: "user:[4026531837] mnt:[…] …".
const HostNamespaces = "MOSS_HOST_NS"

// namespaces are the files of /proc/self/ns, in the order in which they are told.
var namespaces = []string{"user", "mnt", "pid", "net", "ipc", "uts", "cgroup"}

// Namespaces names the namespaces of the calling process, for HostNamespaces.
func Namespaces() string {
	var all []string
	for _, n := range namespaces {
		if l, err := os.Readlink("/proc/self/ns/" + n); err == nil {
			all = append(all, l)
		}
	}
	return strings.Join(all, " ")
}

// Main prints the report and ends the process.
func Main() {
	Report(os.Stdout)
	os.Exit(0)
}

// Report writes what the calling process sees of itself.
func Report(w io.Writer) {
	line := func(what, format string, args ...any) {
		fmt.Fprintf(w, "  %-14s %s\n", what, fmt.Sprintf(format, args...))
	}
	status := statusFields()
	fmt.Fprintf(w, "Hello from inside a moss container. What just happened, as seen from here:\n\n")
	host, _ := os.Hostname()
	line("hostname", "%s", host)
	exe, _ := os.Readlink("/proc/self/exe")
	first, _ := os.ReadFile("/proc/1/comm")
	line("process", "pid %d, %s; pid 1 is %s", os.Getpid(), exe, strings.TrimSpace(string(first)))
	line("user", "uid %d, gid %d", os.Getuid(), os.Getgid())
	line("uid map", "%s", idMap("/proc/self/uid_map"))
	line("gid map", "%s", idMap("/proc/self/gid_map"))
	own, shared := compareNamespaces(os.Getenv(HostNamespaces))
	line("namespaces", "own: %s", orNone(own))
	line("", "the host's: %s", orNone(shared))
	line("root mount", "%s", rootMount())
	line("capabilities", "%s", capabilities(status["CapEff"]))
	line("seccomp", "%s", seccomp(status["Seccomp"], status["Seccomp_filters"]))
	line("no new privs", "%s", status["NoNewPrivs"])
	line("network", "%s", interfaces())
	fmt.Fprintf(w, "\nNo root was used, and no daemon. Next: moss run -it --rm debian bash\n")
}

func statusFields() map[string]string {
	f := map[string]string{}
	b, _ := os.ReadFile("/proc/self/status")
	for _, l := range strings.Split(string(b), "\n") {
		if k, v, ok := strings.Cut(l, ":"); ok {
			f[k] = strings.TrimSpace(v)
		}
	}
	return f
}

// idMap reads a uid_map or gid_map: "container id -> host id" ranges.
func idMap(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.Fields(l)
		if len(f) != 3 {
			continue
		}
		if f[2] == "1" {
			all = append(all, f[0]+" -> "+f[1])
			continue
		}
		all = append(all, fmt.Sprintf("%s -> %s (%s ids)", f[0], f[1], f[2]))
	}
	return strings.Join(all, ", ") + "  (ids here -> ids of the namespace around)"
}

func compareNamespaces(host string) (own, shared string) {
	var a, b []string
	for _, n := range namespaces {
		l, err := os.Readlink("/proc/self/ns/" + n)
		switch {
		case err != nil:
		case strings.Contains(host, l):
			b = append(b, n)
		default:
			a = append(a, n)
		}
	}
	return strings.Join(a, " "), strings.Join(b, " ")
}

// rootMount finds "/" in mountinfo (proc_pid_mountinfo(5)): the last line for it is the one on top.
func rootMount() string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	text := "unknown"
	for _, l := range strings.Split(string(b), "\n") {
		left, right, ok := strings.Cut(l, " - ")
		f, g := strings.Fields(left), strings.Fields(right)
		if !ok || len(f) < 6 || len(g) < 3 || f[4] != "/" {
			continue
		}
		text = fmt.Sprintf("type %s, source %s, %s", g[0], g[1], f[5])
	}
	return text
}

var capNames = []string{
	"chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap", "linux_immutable",
	"net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner", "sys_module", "sys_rawio", "sys_chroot",
	"sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice", "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease",
	"audit_write", "audit_control", "setfcap", "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read",
	"perfmon", "bpf", "checkpoint_restore",
}

func capabilities(hex string) string {
	set, err := strconv.ParseUint(hex, 16, 64)
	if err != nil {
		return "unknown"
	}
	var names []string
	for i, n := range capNames {
		if set&(1<<i) != 0 {
			names = append(names, n)
		}
	}
	return fmt.Sprintf("%d in effect: %s", bits.OnesCount64(set), orNone(strings.Join(names, " ")))
}

func seccomp(mode, filters string) string {
	switch mode {
	case "0":
		return "mode 0 (off)"
	case "2":
		return fmt.Sprintf("mode 2 (filter), %s filter(s)", filters)
	}
	return "mode " + mode
}

func interfaces() string {
	ifs, err := net.Interfaces()
	if err != nil {
		return err.Error()
	}
	var all []string
	for _, i := range ifs {
		if i.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, _ := i.Addrs()
		var text []string
		for _, a := range addrs {
			text = append(text, a.String())
		}
		all = append(all, i.Name+" "+strings.Join(text, " "))
	}
	sort.Strings(all)
	return orNone(strings.Join(all, ", "))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
