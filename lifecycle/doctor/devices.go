package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

func checkFuse(context.Context, Options) Check {
	return device("/dev/fuse", "fuse", "no container can run: images are served through it")
}

func checkTun(context.Context, Options) Check {
	return device("/dev/net/tun", "tun", "containers have no network of their own; --network host and --network none still work")
}

// device opens a device, which is all that moss asks of it, and gives it back at once.
func device(path, module, cost string) Check {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		f.Close()
		return Check{Verdict: OK, Found: path + " can be opened"}
	}
	c := Check{Verdict: Fail, Found: err.Error(), Cost: cost}
	switch {
	case errors.Is(err, fs.ErrPermission):
		c.Remedy = fmt.Sprintf(`echo 'KERNEL=="%s", MODE="0666"' | sudo tee /etc/udev/rules.d/90-%s.rules && sudo chmod 0666 %s`, module, module, path)
		if inContainer() {
			c.Remedy = "start this container with --device " + path
		}
	case inContainer():
		c.Remedy = "start this container with --device " + path
	default: // ENOENT, ENODEV, ENXIO
		c.Remedy = fmt.Sprintf("echo %s | sudo tee /etc/modules-load.d/%s.conf && sudo modprobe %s", module, module, module)
	}
	return c
}

// inContainer says whether docker or podman made this machine; a device is then missing because nobody asked for it.
func inContainer() bool { return exists("/.dockerenv") || exists("/run/.containerenv") }

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// checkSeccomp asks the kernel for the answer that docker's profile gives to what it forbids.
func checkSeccomp(context.Context, Options) Check {
	action := uint32(unix.SECCOMP_RET_ERRNO)
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_ACTION_AVAIL, 0, uintptr(unsafe.Pointer(&action)))
	if errno == 0 {
		return Check{Verdict: OK, Found: "system calls can be filtered"}
	}
	// The question itself is newer (4.14) than the filters, which this sees: EFAULT says that the mode is known.
	if errno == syscall.EINVAL {
		if err := unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, 0, 0, 0); err == syscall.EFAULT {
			return Check{Verdict: OK, Found: "system calls can be filtered (an old kernel)"}
		}
	}
	return Check{Verdict: Fail, Found: fmt.Sprintf("system calls cannot be filtered: %v", errno),
		Cost:   "containers start with --security-opt seccomp=unconfined only, less isolated than docker's",
		Remedy: "boot a kernel with CONFIG_SECCOMP_FILTER=y"}
}
