package runflags

import (
	"fmt"
	"slices"

	"github.com/spf13/pflag"
)

// refused are docker's flags that moss does not have yet, with the values of theirs that change nothing and so may be
// given. A flag that would be swallowed is worse than one that is refused.
var refused = []struct {
	name, short string
	isBool      bool
	harmless    []string
}{
	{name: "add-device-cgroup-rule"}, {name: "blkio-weight", harmless: []string{"0"}}, {name: "blkio-weight-device"}, {name: "cgroup-parent"},
	{name: "cgroupns", harmless: []string{"private"}}, {name: "cpu-count", harmless: []string{"0"}}, {name: "cpu-percent", harmless: []string{"0"}},
	{name: "cpu-period", harmless: []string{"0"}}, {name: "cpu-quota", harmless: []string{"0"}}, {name: "cpu-rt-period", harmless: []string{"0"}},
	{name: "cpu-rt-runtime", harmless: []string{"0"}}, {name: "cpu-shares", short: "c", harmless: []string{"0"}}, {name: "cpus", harmless: []string{"0", "0.0"}},
	{name: "cpuset-cpus"}, {name: "cpuset-mems"}, {name: "device"}, {name: "device-cgroup-rule"}, {name: "device-read-bps"}, {name: "device-read-iops"},
	{name: "device-write-bps"}, {name: "device-write-iops"}, {name: "disable-content-trust", isBool: true, harmless: []string{"true"}}, {name: "gpus"},
	{name: "group-add"}, {name: "health-cmd"}, {name: "health-interval", harmless: []string{"0s"}}, {name: "health-retries", harmless: []string{"0"}},
	{name: "health-start-interval", harmless: []string{"0s"}}, {name: "health-start-period", harmless: []string{"0s"}},
	{name: "health-timeout", harmless: []string{"0s"}}, {name: "io-maxbandwidth"}, {name: "io-maxiops"}, {name: "ip"}, {name: "ip6"},
	{name: "ipc", harmless: []string{"private"}}, {name: "isolation", harmless: []string{"default"}}, {name: "kernel-memory"}, {name: "link"}, {name: "link-local-ip"},
	{name: "log-driver", harmless: []string{"json-file"}}, {name: "log-opt"}, {name: "mac-address"}, {name: "memory", short: "m", harmless: []string{"0"}},
	{name: "memory-reservation", harmless: []string{"0"}}, {name: "memory-swap", harmless: []string{"0"}}, {name: "memory-swappiness", harmless: []string{"-1"}},
	{name: "network-alias"}, {name: "net-alias"}, {name: "no-healthcheck", isBool: true, harmless: []string{"true", "false"}},
	{name: "oom-kill-disable", isBool: true, harmless: []string{"false"}}, {name: "oom-score-adj", harmless: []string{"0"}}, {name: "pid"},
	{name: "pids-limit", harmless: []string{"0", "-1"}}, {name: "publish-all", short: "P", isBool: true, harmless: []string{"false"}},
	{name: "restart", harmless: []string{"no"}}, {name: "runtime"}, {name: "storage-opt"}, {name: "use-api-socket", isBool: true, harmless: []string{"false"}},
	{name: "userns"}, {name: "uts"}, {name: "volume-driver", harmless: []string{"local"}}, {name: "volumes-from"},
}

// refusedValue is a flag that only its harmless values may be given to.
type refusedValue struct {
	name     string
	harmless []string
	isBool   bool
}

func (v *refusedValue) Set(s string) error {
	if slices.Contains(v.harmless, s) {
		return nil
	}
	return fmt.Errorf("flag --%s is not supported by moss yet", v.name)
}
func (v *refusedValue) Type() string     { return "" }
func (v *refusedValue) String() string   { return "" }
func (v *refusedValue) IsBoolFlag() bool { return v.isBool }

func addRefused(set *pflag.FlagSet) {
	for _, r := range refused {
		fl := set.VarPF(&refusedValue{name: r.name, harmless: r.harmless, isBool: r.isBool}, r.name, r.short, "")
		if r.isBool {
			fl.NoOptDefVal = "true"
		}
		fl.Hidden = true
	}
}
