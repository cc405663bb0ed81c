package userns

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// seccompFilter is a compiled profile (seccomp(2)).
type seccompFilter struct {
	program []byte // sock_filter after sock_filter, in the machine's byte order
	log     bool   // SECCOMP_FILTER_FLAG_LOG
}

// Offsets into struct seccomp_data, on little-endian machines.
const (
	dataNr   = 0
	dataArch = 4
	dataArgs = 16
)

// x32Bit marks calls of the x32 ABI, which come under x86-64's own architecture number.
const x32Bit = 0x40000000

// abi is one calling convention that the machine's kernel accepts.
type abi struct {
	audit uint32 // AUDIT_ARCH_*
	names []specs.Arch
	table string // "name number name number …"
}

// machineABIs are those of the running machine, the native one first.
func machineABIs() []abi {
	if runtime.GOARCH == "arm64" {
		return []abi{
			{unix.AUDIT_ARCH_AARCH64, []specs.Arch{specs.ArchAARCH64}, syscallsARM64},
			{unix.AUDIT_ARCH_ARM, []specs.Arch{specs.ArchARM}, syscallsARM},
		}
	}
	return []abi{
		{unix.AUDIT_ARCH_X86_64, []specs.Arch{specs.ArchX86_64}, syscallsAMD64},
		{unix.AUDIT_ARCH_I386, []specs.Arch{specs.ArchX86}, syscalls386},
	}
}

// numbers reads a table. The tables are text, and not maps, so that a start pays for them only when it compiles.
func numbers(table string) map[string]uint32 {
	f := strings.Fields(table)
	m := make(map[string]uint32, len(f)/2)
	for i := 0; i+1 < len(f); i += 2 {
		n, _ := strconv.ParseUint(f[i+1], 10, 32)
		m[f[i]] = uint32(n)
	}
	return m
}

var numbersOf = [2]func() map[string]uint32{
	sync.OnceValue(func() map[string]uint32 { return numbers(machineABIs()[0].table) }),
	sync.OnceValue(func() map[string]uint32 { return numbers(machineABIs()[1].table) }),
}

// compileSeccomp turns a profile into BPF. Names that the machine does not know are skipped, as libseccomp does. Calls
// of an ABI that the profile does not name, and all of x32, are refused with ENOSYS.
func compileSeccomp(p *specs.LinuxSeccomp) (seccompFilter, error) {
	var out seccompFilter
	if p == nil {
		return out, nil
	}
	for _, f := range p.Flags {
		switch f {
		case specs.LinuxSeccompFlagLog:
			out.log = true
		case specs.LinuxSeccompFlagSpecAllow:
		default:
			return out, fmt.Errorf("seccomp flag %s is not supported", f)
		}
	}
	if p.ListenerPath != "" {
		return out, fmt.Errorf("seccomp listenerPath is not supported")
	}
	fallback, err := action(p.DefaultAction, p.DefaultErrnoRet)
	if err != nil {
		return out, err
	}
	// The program is put together from its end, so that every jump's distance is known when it is written.
	var b bpf
	refuse := b.ret(unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS))
	next := refuse
	abis := machineABIs()
	for i := len(abis) - 1; i >= 0; i-- {
		a := abis[i]
		if i > 0 && !slices.Contains(p.Architectures, a.names[0]) {
			continue
		}
		body, err := compileABI(&b, p, numbersOf[i](), fallback)
		if err != nil {
			return out, err
		}
		body = b.load(dataNr, body)
		if a.audit == unix.AUDIT_ARCH_X86_64 {
			body = b.load(dataNr, b.jump(unix.BPF_JGE, x32Bit, refuse, body))
		}
		next = b.jump(unix.BPF_JEQ, a.audit, body, next)
	}
	b.load(dataArch, next)
	if len(b.code) > unix.BPF_MAXINSNS {
		return out, fmt.Errorf("seccomp profile: %d instructions, and the kernel takes %d", len(b.code), unix.BPF_MAXINSNS)
	}
	out.program = b.bytes()
	return out, nil
}

func action(a specs.LinuxSeccompAction, errno *uint) (uint32, error) {
	code := uint32(unix.EPERM)
	if errno != nil {
		code = uint32(*errno)
	}
	switch a {
	case specs.ActAllow:
		return unix.SECCOMP_RET_ALLOW, nil
	case specs.ActErrno:
		return unix.SECCOMP_RET_ERRNO | code&0xffff, nil
	case specs.ActKill, specs.ActKillThread:
		return unix.SECCOMP_RET_KILL_THREAD, nil
	case specs.ActKillProcess:
		return unix.SECCOMP_RET_KILL_PROCESS, nil
	case specs.ActTrap:
		return unix.SECCOMP_RET_TRAP, nil
	case specs.ActLog:
		return unix.SECCOMP_RET_LOG, nil
	case specs.ActTrace:
		return unix.SECCOMP_RET_TRACE | code&0xffff, nil
	}
	return 0, fmt.Errorf("seccomp action %s is not supported", a)
}

// rule is one way in which a call may get an action other than the default.
type rule struct {
	args   []specs.LinuxSeccompArg
	action uint32
}

// compileABI writes the decision for one ABI and returns where it begins; the call's number is loaded already.
func compileABI(b *bpf, p *specs.LinuxSeccomp, nums map[string]uint32, fallback uint32) (int, error) {
	rules := map[uint32][]rule{}
	for _, s := range p.Syscalls {
		act, err := action(s.Action, s.ErrnoRet)
		if err != nil {
			return 0, err
		}
		if act == fallback {
			continue
		}
		for _, name := range s.Names {
			if nr, ok := nums[name]; ok {
				rules[nr] = append(rules[nr], rule{s.Args, act})
			}
		}
	}
	rets := map[uint32]int{}
	ret := func(action uint32) int {
		at, ok := rets[action]
		if !ok {
			at = b.ret(action)
			rets[action] = at
		}
		return at
	}
	// Spans of numbers with one decision; calls with conditions are spans of their own.
	type span struct {
		first uint32
		at    int
	}
	var nrs []uint32
	for nr := range rules {
		nrs = append(nrs, nr)
	}
	slices.Sort(nrs)
	spans := []span{{0, ret(fallback)}}
	add := func(first uint32, at int) {
		switch last := &spans[len(spans)-1]; {
		case last.first == first:
			last.at = at
			if n := len(spans); n > 1 && spans[n-2].at == at {
				spans = spans[:n-1]
			}
		case last.at != at:
			spans = append(spans, span{first, at})
		}
	}
	for _, nr := range nrs {
		at, err := decide(b, rules[nr], ret, fallback)
		if err != nil {
			return 0, err
		}
		add(nr, at)
		add(nr+1, ret(fallback))
	}
	// A binary search over the spans: eight comparisons for the 400 calls of docker's profile.
	var search func(spans []span) int
	search = func(spans []span) int {
		if len(spans) == 1 {
			return spans[0].at
		}
		mid := len(spans) / 2
		low := search(spans[:mid])
		high := search(spans[mid:])
		return b.jump(unix.BPF_JGE, spans[mid].first, high, low)
	}
	return search(spans), nil
}

// decide writes the decision for one call: the first rule whose conditions all hold. An unconditional rule holds
// whatever conditions other rules for the same action have, wherever it stands.
func decide(b *bpf, rules []rule, ret func(uint32) int, fallback uint32) (int, error) {
	for _, r := range rules {
		if len(r.args) == 0 {
			return ret(r.action), nil
		}
	}
	next := ret(fallback)
	for i := len(rules) - 1; i >= 0; i-- {
		miss := next
		at := ret(rules[i].action)
		for j := len(rules[i].args) - 1; j >= 0; j-- {
			var err error
			if at, err = condition(b, rules[i].args[j], at, miss); err != nil {
				return 0, err
			}
		}
		next = at
	}
	return next, nil
}

// condition compares a 64-bit argument in two halves, the high one first.
func condition(b *bpf, a specs.LinuxSeccompArg, yes, no int) (int, error) {
	if a.Index > 5 {
		return 0, fmt.Errorf("seccomp profile: a call has no argument %d", a.Index)
	}
	low, high := uint32(dataArgs+8*a.Index), uint32(dataArgs+8*a.Index+4)
	vl, vh := uint32(a.Value), uint32(a.Value>>32)
	equal := func(yes, no int) int {
		return b.load(high, b.jump(unix.BPF_JEQ, vh, b.load(low, b.jump(unix.BPF_JEQ, vl, yes, no)), no))
	}
	order := func(op uint16, yes, no int) int { // op: JGT or JGE
		lows := b.load(low, b.jump(op, vl, yes, no))
		return b.load(high, b.jump(unix.BPF_JGT, vh, yes, b.jump(unix.BPF_JEQ, vh, lows, no)))
	}
	switch a.Op {
	case specs.OpEqualTo:
		return equal(yes, no), nil
	case specs.OpNotEqual:
		return equal(no, yes), nil
	case specs.OpGreaterThan:
		return order(unix.BPF_JGT, yes, no), nil
	case specs.OpGreaterEqual:
		return order(unix.BPF_JGE, yes, no), nil
	case specs.OpLessThan:
		return order(unix.BPF_JGE, no, yes), nil
	case specs.OpLessEqual:
		return order(unix.BPF_JGT, no, yes), nil
	case specs.OpMaskedEqual: // Value is the mask, ValueTwo what has to be left
		ml, mh := vl, vh
		vl, vh := uint32(a.ValueTwo), uint32(a.ValueTwo>>32)
		lows := b.load(low, b.and(ml, b.jump(unix.BPF_JEQ, vl, yes, no)))
		return b.load(high, b.and(mh, b.jump(unix.BPF_JEQ, vh, lows, no))), nil
	}
	return 0, fmt.Errorf("seccomp operator %s is not supported", a.Op)
}

// bpf is a program put together from its end. A position is the number of instructions from the end, its own included.
type bpf struct{ code []unix.SockFilter } // the last instruction first

func (b *bpf) add(i unix.SockFilter) int {
	b.code = append(b.code, i)
	return len(b.code)
}

func (b *bpf) ret(v uint32) int {
	return b.add(unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: v})
}

// to makes sure that the next instruction to run is the one at position at.
func (b *bpf) to(at int) {
	if d := len(b.code) - at; d > 0 {
		b.add(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(d)})
	}
}

func (b *bpf) load(offset uint32, then int) int {
	b.to(then)
	return b.add(unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset})
}

func (b *bpf) and(mask uint32, then int) int {
	b.to(then)
	return b.add(unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: mask})
}

// jump compares with k. A conditional jump reaches 255 instructions; what is farther goes through a long one.
func (b *bpf) jump(op uint16, k uint32, yes, no int) int {
	if len(b.code)-yes > 255 {
		yes = b.add(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(b.code) - yes)})
	}
	if len(b.code)-no > 255 {
		no = b.add(unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(b.code) - no)})
	}
	return b.add(unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, K: k, Jt: uint8(len(b.code) - yes), Jf: uint8(len(b.code) - no)})
}

func (b *bpf) bytes() []byte {
	out := make([]byte, 0, 8*len(b.code))
	for i := len(b.code) - 1; i >= 0; i-- {
		c := b.code[i]
		out = binary.NativeEndian.AppendUint16(out, c.Code)
		out = append(out, c.Jt, c.Jf)
		out = binary.NativeEndian.AppendUint32(out, c.K)
	}
	return out
}
