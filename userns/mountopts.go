package userns

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// mountOptions are OCI mount options taken apart.
type mountOptions struct {
	set, clear  uint64 // MOUNT_ATTR_*
	propagation uint64 // MS_PRIVATE and its kin; 0: as it is
	recursive   bool   // rbind, or a recursive propagation
	bind        bool
	data        []string // for the file system itself
}

// attributes are the options that become attributes of a mount (mount_setattr(2)).
var attributes = map[string]struct{ set, clear uint64 }{
	"ro": {unix.MOUNT_ATTR_RDONLY, 0}, "rw": {0, unix.MOUNT_ATTR_RDONLY},
	"nosuid": {unix.MOUNT_ATTR_NOSUID, 0}, "suid": {0, unix.MOUNT_ATTR_NOSUID},
	"nodev": {unix.MOUNT_ATTR_NODEV, 0}, "dev": {0, unix.MOUNT_ATTR_NODEV},
	"noexec": {unix.MOUNT_ATTR_NOEXEC, 0}, "exec": {0, unix.MOUNT_ATTR_NOEXEC},
	"noatime":     {unix.MOUNT_ATTR_NOATIME, unix.MOUNT_ATTR__ATIME},
	"relatime":    {unix.MOUNT_ATTR_RELATIME, unix.MOUNT_ATTR__ATIME},
	"strictatime": {unix.MOUNT_ATTR_STRICTATIME, unix.MOUNT_ATTR__ATIME},
	"nodiratime":  {unix.MOUNT_ATTR_NODIRATIME, 0},
	"nosymfollow": {unix.MOUNT_ATTR_NOSYMFOLLOW, 0},
}

var propagations = map[string]struct {
	flag      uint64
	recursive bool
}{
	"private": {unix.MS_PRIVATE, false}, "rprivate": {unix.MS_PRIVATE, true},
	"slave": {unix.MS_SLAVE, false}, "rslave": {unix.MS_SLAVE, true},
	"shared": {unix.MS_SHARED, false}, "rshared": {unix.MS_SHARED, true},
	"unbindable": {unix.MS_UNBINDABLE, false}, "runbindable": {unix.MS_UNBINDABLE, true},
}

func parseOptions(options []string) mountOptions {
	var o mountOptions
	for _, opt := range options {
		if a, ok := attributes[opt]; ok {
			o.set, o.clear = o.set&^a.clear|a.set, o.clear&^a.set|a.clear
			continue
		}
		if p, ok := propagations[opt]; ok {
			o.propagation = p.flag
			continue
		}
		switch opt {
		case "bind":
			o.bind = true
		case "rbind":
			o.bind, o.recursive = true, true
		case "defaults", "async", "nofail", "newinstance":
			// the kernel's own way in any case
		default:
			o.data = append(o.data, opt)
		}
	}
	return o
}

// apply gives a detached mount its attributes. Only what is asked for is set: flags that are locked, because the
// mount comes from a more privileged namespace, stay.
func (o mountOptions) apply(fd int) error {
	attr := unix.MountAttr{Attr_set: o.set, Propagation: o.propagation}
	if o.clear&unix.MOUNT_ATTR__ATIME != 0 {
		attr.Attr_clr = unix.MOUNT_ATTR__ATIME
	}
	if attr == (unix.MountAttr{}) {
		return nil
	}
	flags := uint(unix.AT_EMPTY_PATH)
	if o.recursive || !o.bind {
		flags |= unix.AT_RECURSIVE
	}
	err := unix.MountSetattr(fd, "", flags, &attr)
	if err != nil && attr.Attr_clr != 0 {
		// The access time rule of a mount from outside is locked; everything else still has to hold.
		attr.Attr_clr, attr.Attr_set = 0, attr.Attr_set&^unix.MOUNT_ATTR__ATIME
		err = unix.MountSetattr(fd, "", flags, &attr)
	}
	if err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return nil
}
