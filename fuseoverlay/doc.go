// Package fuseoverlay makes a container's root file system: a read-only go-fuse server that shows a Tree (the merged
// image), and a writable layer on it.
//
// A Tree is any read-only file tree; package image/erofs has one, this package knows only the interface. Serve mounts
// it, without fusermount, in the caller's user namespace, on go-fuse's raw API: a node of the tree is a node of FUSE,
// so that no request allocates and nothing has to be forgotten. The image never changes, so the kernel is told to
// cache everything for ever, and opens, flushes and (where the image has none) xattrs are never asked for again after
// the first ENOSYS.
//
// MountRoot puts the kernel's overlay (mount option userxattr, https://docs.kernel.org/filesystems/overlayfs.html) on
// that mount: reads come from the page cache, writes go to the upper folder natively. Probe tells whether this works
// here, by doing it.
package fuseoverlay
