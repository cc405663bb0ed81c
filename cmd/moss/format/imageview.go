package format

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	imagetypes "github.com/moby/moby/api/types/image"
)

// ImageView is what docker 29 prints for `images` without a format: names in full, how much each image takes, and a U
// for those that a container uses.
type ImageView struct {
	Terminal bool // bold names and a legend
	Width    int  // of the terminal; 0: no limit
}

type viewRow struct {
	name, id, usage, content string
	used                     bool
}

// Write prints the list, sorted by name; what has no name comes last.
func (v ImageView) Write(w io.Writer, list []imagetypes.Summary) error {
	rows := viewRows(list)
	width := len("IMAGE")
	for _, r := range rows {
		width = max(width, utf8.RuneCountInString(r.name))
	}
	// The other columns and the gaps before them take 54. A name that does not fit stands on a line of its own.
	if v.Width > 0 {
		width = min(width, max(v.Width-54, 12))
	}
	out := bufio.NewWriter(w)
	if v.Terminal && v.Width > 0 {
		fmt.Fprintf(out, "%*s\n", v.Width, "i Info →   U  In Use")
	}
	fmt.Fprintf(out, "%-*s   %-12s   %10s   %12s   %-5s\n", width, "IMAGE", "ID", "DISK USAGE", "CONTENT SIZE", "EXTRA")
	for _, r := range rows {
		n := utf8.RuneCountInString(r.name)
		if v.Terminal && r.name != untagged {
			r.name = "\x1b[1m" + r.name + "\x1b[0m"
		}
		out.WriteString(r.name)
		if n > width {
			out.WriteByte('\n')
			n = 0
		}
		extra := ""
		if r.used {
			extra = "U"
		}
		fmt.Fprintf(out, "%s   %-12s   %10s   %12s   %-5s\n", strings.Repeat(" ", width-n), r.id, r.usage, r.content, extra)
	}
	return out.Flush()
}

const untagged = "<untagged>"

func viewRows(list []imagetypes.Summary) []viewRow {
	var rows []viewRow
	for _, img := range list {
		row := viewRow{name: untagged, id: ShortID(img.ID), usage: size(img.Size), content: contentSize(img), used: img.Containers > 0}
		named := false
		for _, ref := range img.RepoTags {
			if name, _, _ := splitReference(ref); name != none {
				row.name, named = FamiliarName(ref), true
				rows = append(rows, row)
			}
		}
		if !named {
			rows = append(rows, row)
		}
	}
	slices.SortStableFunc(rows, func(a, b viewRow) int {
		if (a.name == untagged) != (b.name == untagged) {
			if a.name == untagged {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.name, b.name)
	})
	return rows
}

// contentSize is what the image is as it was pulled, compressed. Who lists images may not know.
func contentSize(img imagetypes.Summary) string {
	if len(img.Manifests) == 0 {
		return "N/A"
	}
	var n int64
	for _, m := range img.Manifests {
		n += m.Size.Content
	}
	return size(n)
}
