package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// The disk format: the parts of EROFS that we write and read. All numbers are little-endian.
const (
	blockBits = 12
	blockSize = 1 << blockBits

	superOffset = 1024
	superSize   = 128
	superMagic  = 0xE0F5E1E2

	incompatChunked = 0x4 // files in chunks
	incompatDevices = 0x8 // chunks in other files

	slotSize   = 32 // a node's number is its inode's offset in units of this
	inodeSize  = 64 // extended inodes only: they hold nanoseconds and 32-bit owners
	direntSize = 12

	layoutPlain  = 0 // body in consecutive blocks
	layoutInline = 2 // as plain, with the rest behind the inode
	layoutChunk  = 4 // a table of chunks behind the inode

	chunkIndexes = 0x20 // the table's entries are of 8 bytes, with a device
	chunkEntry   = 8
	noBlock      = 0xffffffff // a hole

	xattrHeader = 12

	deviceSlot = 128

	maxName    = 255
	maxDevices = 1<<16 - 2
)

// rootOffset is where the root's inode lies: its number has to fit into 16 bits, so it is first.
const rootOffset = superOffset + superSize

// withXattrs marks, as the volume's name, a file in which some node has an extended attribute; without marks one with
// none. A reader then need not look.
var (
	withXattrs = [16]byte{'m', 'o', 's', 's', '+', 'x', 'a', 't', 't', 'r'}
	without    = [16]byte{'m', 'o', 's', 's'}
)

var le = binary.LittleEndian

// ErrFormat says that a file is not what this package writes, or is damaged.
var ErrFormat = errors.New("not a valid EROFS file")

// super is the superblock, as far as it is used.
type super struct {
	rootNid, nodes uint64
	mtime          int64
	blocks         uint32
	incompat       uint32
	devices        uint16
	deviceSlotOff  uint16
	name           [16]byte
}

func (s *super) encode() []byte {
	b := make([]byte, superSize)
	le.PutUint32(b[0:], superMagic)
	b[12] = blockBits
	le.PutUint16(b[14:], uint16(s.rootNid))
	le.PutUint64(b[16:], s.nodes)
	le.PutUint64(b[24:], uint64(s.mtime))
	le.PutUint32(b[36:], s.blocks)
	copy(b[64:80], s.name[:])
	le.PutUint32(b[80:], s.incompat)
	le.PutUint16(b[86:], s.devices)
	le.PutUint16(b[88:], s.deviceSlotOff)
	return b
}

func decodeSuper(b []byte) (super, error) {
	var s super
	if len(b) < superOffset+superSize {
		return s, fmt.Errorf("%w: %d bytes are too few", ErrFormat, len(b))
	}
	b = b[superOffset:]
	if le.Uint32(b) != superMagic {
		return s, fmt.Errorf("%w: wrong magic number", ErrFormat)
	}
	if b[12] != blockBits || le.Uint32(b[40:]) != 0 || le.Uint32(b[80:])&^(incompatChunked|incompatDevices) != 0 {
		return s, fmt.Errorf("%w: made by another program, with features that are not read here", ErrFormat)
	}
	s.rootNid, s.nodes, s.mtime = uint64(le.Uint16(b[14:])), le.Uint64(b[16:]), int64(le.Uint64(b[24:]))
	s.blocks, s.incompat = le.Uint32(b[36:]), le.Uint32(b[80:])
	s.devices, s.deviceSlotOff = le.Uint16(b[86:]), le.Uint16(b[88:])
	copy(s.name[:], b[64:80])
	return s, nil
}

// inode is one node's metadata.
type inode struct {
	layout     uint16
	xattrCount uint16 // EROFS's count: 0, or 1 plus the words behind the header
	mode       uint16
	size       uint64
	u          uint32 // first block, or device number, or chunk format
	ino        uint32
	uid, gid   uint32
	mtime      int64
	nsec       uint32
	nlink      uint32
}

func (n *inode) encode(b []byte) {
	le.PutUint16(b[0:], 1|n.layout<<1)
	le.PutUint16(b[2:], n.xattrCount)
	le.PutUint16(b[4:], n.mode)
	le.PutUint16(b[6:], 0)
	le.PutUint64(b[8:], n.size)
	le.PutUint32(b[16:], n.u)
	le.PutUint32(b[20:], n.ino)
	le.PutUint32(b[24:], n.uid)
	le.PutUint32(b[28:], n.gid)
	le.PutUint64(b[32:], uint64(n.mtime))
	le.PutUint32(b[40:], n.nsec)
	le.PutUint32(b[44:], n.nlink)
	clear(b[48:inodeSize])
}

// nlinkOffset is where in an inode its number of links is.
const nlinkOffset = 44

func (n *inode) decode(b []byte) {
	n.layout, n.xattrCount, n.mode = le.Uint16(b)>>1&7, le.Uint16(b[2:]), le.Uint16(b[4:])
	n.size, n.u, n.ino = le.Uint64(b[8:]), le.Uint32(b[16:]), le.Uint32(b[20:])
	n.uid, n.gid = le.Uint32(b[24:]), le.Uint32(b[28:])
	n.mtime, n.nsec, n.nlink = int64(le.Uint64(b[32:])), le.Uint32(b[40:]), le.Uint32(b[44:])
}

// impliedNsec marks, as a modification time of one nanosecond after the epoch, a folder that the layer's tar does not
// have an entry for.
const impliedNsec = 1

func (n *inode) implied() bool { return n.mtime == 0 && n.nsec == impliedNsec }

// xattrSize is what the extended attributes behind an inode take.
func (n *inode) xattrSize() int {
	if n.xattrCount == 0 {
		return 0
	}
	return xattrHeader + 4*(int(n.xattrCount)-1)
}

// fileType is a dirent's type for a mode.
func fileType(mode uint16) byte {
	switch mode & unix.S_IFMT {
	case unix.S_IFREG:
		return 1
	case unix.S_IFDIR:
		return 2
	case unix.S_IFCHR:
		return 3
	case unix.S_IFBLK:
		return 4
	case unix.S_IFIFO:
		return 5
	case unix.S_IFSOCK:
		return 6
	case unix.S_IFLNK:
		return 7
	}
	return 0
}

// modeOf is the file type bits for a dirent's type.
var modeOf = [8]uint32{0, unix.S_IFREG, unix.S_IFDIR, unix.S_IFCHR, unix.S_IFBLK, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFLNK}

// encodeDev is the kernel's 32-bit form of a device number (new_encode_dev).
func encodeDev(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | (minor&^0xff)<<12
}

// xattrPrefixes are the name spaces that have a number, and so are not written out.
var xattrPrefixes = []struct {
	index byte
	name  string
	exact bool
}{
	{1, "user.", false}, {2, "system.posix_acl_access", true}, {3, "system.posix_acl_default", true},
	{4, "trusted.", false}, {6, "security.", false},
}

func align(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }
