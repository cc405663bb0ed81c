package erofs

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"strings"
)

// copyBuffer is how much of a body is taken at once.
const copyBuffer = 64 << 10

// maxHoles is how much the sparse entries of one layer may hold together. Such an entry says in a few bytes that it is
// of any size, and somebody has to go through all of it; this much takes half a minute.
const maxHoles = 1 << 40

// maxFile is the largest file: an index has to be able to point to it as one chunk.
const maxFile = 1<<(blockBits+31) - 1

// isSparse tells the entries that GNU tar makes of sparse files, in all its ways of writing them.
func isSparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

var zeros [blockSize]byte

// regular writes a file's body as it comes. Blocks of zeros are not written; where a whole chunk is zeros it has no
// place in the file at all.
func (t *tarLayer) regular(n *node, r io.Reader, size int64) error {
	if size < 0 || size > maxFile {
		return fmt.Errorf("%w: a file of %d bytes", ErrLayer, size)
	}
	n.size = uint64(size)
	if t.buf == nil {
		t.buf = make([]byte, copyBuffer)
	}
	buf := t.buf
	if size < blockSize {
		body := buf[:size]
		if _, err := io.ReadFull(r, body); err != nil {
			return t.streamError(unexpected(err))
		}
		return t.b.writeSmall(n, body)
	}
	// At most about 4096 chunks, so that the table of a huge file of nothing stays small.
	bits := blockBits
	for size>>bits > 4096 {
		bits++
	}
	chunk := int64(1) << bits
	var starts []uint32 // of chunks
	holes := false
	place := int64(-1) // where the chunk under way is, when it has a place
	for off := int64(0); off < size; {
		want := min(int64(len(buf)), size-off)
		want = min(want, chunk-off%chunk)
		if _, err := io.ReadFull(r, buf[:want]); err != nil {
			return t.streamError(unexpected(err))
		}
		if off%chunk == 0 {
			place = -1
			starts = append(starts, noBlock)
		}
		// Runs of blocks that hold something, each in one write.
		for i := int64(0); i < want; {
			n := min(blockSize, want-i)
			if bytes.Equal(buf[i:i+n], zeros[:n]) {
				i += n
				continue
			}
			j := i + n
			for j < want {
				n := min(blockSize, want-j)
				if bytes.Equal(buf[j:j+n], zeros[:n]) {
					break
				}
				j += n
			}
			if place < 0 {
				at, err := t.b.body(min(chunk, size-off/chunk*chunk))
				if err != nil {
					return err
				}
				place = at
				starts[len(starts)-1] = uint32(at >> blockBits)
			}
			if err := t.b.put(buf[i:j], place+off%chunk+i); err != nil {
				return err
			}
			i = j
		}
		off += want
	}
	// Chunks that lie one behind the other, which is the rule, are one run of blocks.
	for i, s := range starts {
		if s == noBlock || i > 0 && s != starts[i-1]+uint32(chunk>>blockBits) {
			holes = true
		}
	}
	if !holes {
		return t.b.write(n, layoutPlain, starts[0], nil)
	}
	t.b.chunks = true
	table := make([]byte, 0, len(starts)*chunkEntry)
	for _, s := range starts {
		table = append(table, 0, 0, 0, 0)
		table = le.AppendUint32(table, s)
	}
	return t.b.write(n, layoutChunk, uint32(bits-blockBits)|chunkIndexes, table)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
