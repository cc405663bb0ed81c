package userns

import (
	"encoding/binary"
	"testing"

	"github.com/moby/profiles/seccomp"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// run interprets a filter as the kernel would, for the subset of BPF that seccomp filters use.
func run(t *testing.T, program []byte, arch, nr uint32, args ...uint64) uint32 {
	t.Helper()
	data := make([]byte, 64)
	binary.NativeEndian.PutUint32(data[dataNr:], nr)
	binary.NativeEndian.PutUint32(data[dataArch:], arch)
	for i, a := range args {
		binary.NativeEndian.PutUint64(data[dataArgs+8*i:], a)
	}
	var acc uint32
	for pc, steps := 0, 0; ; pc, steps = pc+1, steps+1 {
		if 8*pc+8 > len(program) || steps > 5000 {
			t.Fatalf("the program runs out of itself at %d", pc)
		}
		in := program[8*pc:]
		code, jt, jf, k := binary.NativeEndian.Uint16(in), int(in[2]), int(in[3]), binary.NativeEndian.Uint32(in[4:])
		hit := false
		switch code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			acc = binary.NativeEndian.Uint32(data[k:])
			continue
		case unix.BPF_ALU | unix.BPF_AND | unix.BPF_K:
			acc &= k
			continue
		case unix.BPF_RET | unix.BPF_K:
			return k
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(k)
			continue
		case unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K:
			hit = acc == k
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			hit = acc >= k
		case unix.BPF_JMP | unix.BPF_JGT | unix.BPF_K:
			hit = acc > k
		default:
			t.Fatalf("instruction %#x at %d", code, pc)
		}
		if hit {
			pc += jt
		} else {
			pc += jf
		}
	}
}

const (
	allow  = unix.SECCOMP_RET_ALLOW
	eperm  = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	enosys = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

func dockerProfile(t *testing.T, caps ...string) []byte {
	t.Helper()
	p, err := seccomp.GetDefaultProfile(&specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: caps}}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := compileSeccomp(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d instructions", len(f.program)/8)
	return f.program
}

func TestDockersProfileAllowsAndRefusesAsItSays(t *testing.T) {
	p := dockerProfile(t)
	native, nums := machineABIs()[0], numbersOf[0]()
	second, nums2 := machineABIs()[1], numbersOf[1]()
	for _, c := range []struct {
		name string
		arch uint32
		nr   uint32
		args []uint64
		want uint32
	}{
		{"read", native.audit, nums["read"], nil, allow},
		{"execve", native.audit, nums["execve"], nil, allow},
		{"openat2", native.audit, nums["openat2"], nil, allow},
		{"mount without CAP_SYS_ADMIN", native.audit, nums["mount"], nil, eperm},
		{"kexec_load", native.audit, nums["kexec_load"], nil, eperm},
		{"clone of a thread", native.audit, nums["clone"], []uint64{0x3d0f00}, allow},
		{"clone of a user namespace", native.audit, nums["clone"], []uint64{unix.CLONE_NEWUSER}, eperm},
		{"clone3, so that libc falls back to clone", native.audit, nums["clone3"], nil, enosys},
		{"personality 0", native.audit, nums["personality"], []uint64{0}, allow},
		{"personality with a high half", native.audit, nums["personality"], []uint64{1 << 32}, eperm},
		{"socket AF_INET", native.audit, nums["socket"], []uint64{unix.AF_INET}, allow},
		{"socket AF_VSOCK", native.audit, nums["socket"], []uint64{unix.AF_VSOCK}, eperm},
		{"a number that no call has", native.audit, 9999, nil, eperm},
		{"read of the 32-bit ABI", second.audit, nums2["read"], nil, allow},
		{"mount of the 32-bit ABI", second.audit, nums2["mount"], nil, eperm},
		{"an unknown ABI", 0x1234, nums["read"], nil, enosys},
	} {
		if got := run(t, p, c.arch, c.nr, c.args...); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	if native.audit == unix.AUDIT_ARCH_X86_64 {
		if got := run(t, p, native.audit, x32Bit|nums["read"]); got != enosys {
			t.Errorf("a call of the x32 ABI: %#x, want ENOSYS", got)
		}
	}
	if got := run(t, dockerProfile(t, "CAP_SYS_ADMIN"), native.audit, nums["mount"]); got != allow {
		t.Errorf("mount with CAP_SYS_ADMIN: %#x, want allow", got)
	}
}

func TestConditionsCompareAll64Bits(t *testing.T) {
	const big = 1<<32 + 5
	for _, c := range []struct {
		op       specs.LinuxSeccompOperator
		two      uint64
		yes, no_ []uint64
	}{
		{specs.OpEqualTo, 0, []uint64{big}, []uint64{5, 1 << 32, big + 1}},
		{specs.OpNotEqual, 0, []uint64{5, 1 << 32, big + 1}, []uint64{big}},
		{specs.OpGreaterThan, 0, []uint64{big + 1, 2 << 32}, []uint64{big, 6, 1 << 32}},
		{specs.OpGreaterEqual, 0, []uint64{big, big + 1, 2 << 32}, []uint64{6, 1 << 32}},
		{specs.OpLessThan, 0, []uint64{6, 1 << 32, 0}, []uint64{big, 2 << 32}},
		{specs.OpLessEqual, 0, []uint64{big, 6, 0}, []uint64{big + 1, 2 << 32}},
		{specs.OpMaskedEqual, 1 << 32, []uint64{1 << 32, 1<<32 + 8}, []uint64{0, 1<<32 + 1}},
	} {
		f, err := compileSeccomp(&specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{
			{Names: []string{"read", "no_such_call"}, Action: specs.ActAllow, Args: []specs.LinuxSeccompArg{{Index: 2, Value: big, ValueTwo: c.two, Op: c.op}}}}})
		if err != nil {
			t.Fatal(err)
		}
		a, nr := machineABIs()[0].audit, numbersOf[0]()["read"]
		for _, v := range c.yes {
			if got := run(t, f.program, a, nr, 0, 0, v); got != allow {
				t.Errorf("%s %#x: %#x, want allow", c.op, v, got)
			}
		}
		for _, v := range c.no_ {
			if got := run(t, f.program, a, nr, 0, 0, v); got != eperm {
				t.Errorf("%s %#x: %#x, want EPERM", c.op, v, got)
			}
		}
	}
}
