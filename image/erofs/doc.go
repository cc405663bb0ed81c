// Package erofs keeps a layer as one EROFS file, and an image as one index over its layers' files
// (https://erofs.docs.kernel.org/en/latest/core_ondisk.html).
//
// FromTar turns a layer's tar stream into a layer file in one pass: bodies go to disk as they arrive, folders and the
// superblock at the end. Everything that a layer can say is in it, whiteouts included (character devices 0:0, and the
// xattr trusted.overlay.opaque for opaque folders, as the kernel's overlay has them). Debian's fsck.erofs accepts such
// a file and the kernel mounts it.
//
// Merge resolves the whiteouts of a stack of layers once, and writes the index: metadata only, whose files point into
// the layer files as EROFS's extra devices. Open maps an index into memory, in constant time, and gives the tree that
// a container sees; OpenLayer does the same for one layer.
package erofs
