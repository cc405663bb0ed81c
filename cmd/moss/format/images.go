package format

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	imagetypes "github.com/moby/moby/api/types/image"
)

const none = "<none>"

// Images prints what `images` lists, where a format, --digests, --no-trunc or -q asks for the older table.
type Images struct {
	Format  Format // "" is the table
	Quiet   bool   // ids only
	Digests bool   // with the DIGEST column
	NoTrunc bool
	Now     time.Time
}

var imageHeadings = headings{
	"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST", "CreatedSince": "CREATED",
	"CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
}

func (im Images) format() Format {
	digest := ""
	switch im.Format {
	case "", "table":
		if im.Quiet {
			return "{{.ID}}"
		}
		if im.Digests {
			digest = `\t{{.Digest}}`
		}
		return Format(`table {{.Repository}}\t{{.Tag}}` + digest + `\t{{.ID}}\t{{if .CreatedSince}}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}`)
	case "raw":
		if im.Quiet {
			return "image_id: {{.ID}}"
		}
		if im.Digests {
			digest = "digest: {{.Digest}}\n"
		}
		return Format("repository: {{.Repository}}\ntag: {{.Tag}}\n" + digest + "image_id: {{.ID}}\ncreated_at: {{.CreatedAt}}\nvirtual_size: {{.Size}}\n")
	}
	if im.Format.table() && im.Digests && !strings.Contains(string(im.Format), "{{.Digest}}") {
		return im.Format + `\t{{.Digest}}`
	}
	return im.Format
}

// Check parses the format and tries it on an empty image.
func (im Images) Check() error {
	return writeRows(io.Discard, im.format(), imageHeadings, []*imageRow{{now: im.Now}})
}

// Write prints the list: one line for each tag, or for each digest without one.
func (im Images) Write(w io.Writer, list []imagetypes.Summary) error {
	f := im.format()
	withDigest := im.Digests || strings.Contains(string(f), ".Digest}}")
	var rows []*imageRow
	for i := range list {
		rows = append(rows, im.rows(&list[i], withDigest)...)
	}
	return writeRows(w, f, imageHeadings, rows)
}

func (im Images) rows(img *imagetypes.Summary, withDigest bool) []*imageRow {
	var rows []*imageRow
	add := func(repo, tag, digest string) {
		rows = append(rows, &imageRow{i: *img, full: im.NoTrunc, now: im.Now, repo: repo, tag: tag, digest: digest})
	}
	digests := map[string][]string{}
	for _, ref := range img.RepoDigests {
		if name, _, d := splitReference(FamiliarName(ref)); d != "" && name != none {
			digests[name] = append(digests[name], d)
		}
	}
	tagged := map[string]bool{}
	for _, ref := range img.RepoTags {
		name, tag, _ := splitReference(FamiliarName(ref))
		if tag == "" || name == none {
			continue
		}
		tagged[name] = true
		if !withDigest || len(digests[name]) == 0 {
			add(name, tag, none)
			continue
		}
		for _, d := range digests[name] {
			add(name, tag, d)
		}
	}
	var rest []string
	for name := range digests {
		if !tagged[name] {
			rest = append(rest, name)
		}
	}
	slices.Sort(rest)
	for _, name := range rest {
		if !withDigest {
			add(name, none, none)
			continue
		}
		for _, d := range digests[name] {
			add(name, none, d)
		}
	}
	if len(rows) == 0 {
		add(none, none, none)
	}
	return rows
}

// imageRow is what a template sees of one name of an image.
type imageRow struct {
	i                 imagetypes.Summary
	full              bool
	now               time.Time
	repo, tag, digest string
}

func (r *imageRow) MarshalJSON() ([]byte, error) { return object(r) }

func (r *imageRow) ID() string {
	if r.full {
		return r.i.ID
	}
	return ShortID(r.i.ID)
}

func (r *imageRow) Repository() string { return r.repo }
func (r *imageRow) Tag() string        { return r.tag }
func (r *imageRow) Digest() string     { return r.digest }
func (r *imageRow) CreatedAt() string  { return time.Unix(r.i.Created, 0).String() }
func (r *imageRow) Size() string       { return size(r.i.Size) }

// CreatedSince is empty for an image that does not say when it was made.
func (r *imageRow) CreatedSince() string {
	if r.i.Created <= 0 {
		return ""
	}
	return age(r.i.Created, r.now)
}

func (r *imageRow) Containers() string {
	return known(r.i.Containers, strconv.FormatInt(r.i.Containers, 10))
}
func (r *imageRow) SharedSize() string { return known(r.i.SharedSize, size(r.i.SharedSize)) }

func (r *imageRow) UniqueSize() string {
	return known(min(r.i.Size, r.i.SharedSize), size(r.i.Size-r.i.SharedSize))
}

// known is text, unless the number that it tells of is -1: not counted.
func known(n int64, text string) string {
	if n < 0 {
		return "N/A"
	}
	return text
}
