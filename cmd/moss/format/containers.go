package format

import (
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Containers prints what `ps` lists.
type Containers struct {
	Format  Format
	Quiet   bool // ids only
	Size    bool // with the SIZE column
	NoTrunc bool
	Now     time.Time // ages are counted from here
}

var containerHeadings = headings{
	"ID": "CONTAINER ID", "Names": "NAMES", "Image": "IMAGE", "Command": "COMMAND", "CreatedAt": "CREATED AT",
	"RunningFor": "CREATED", "Ports": "PORTS", "State": "STATE", "Status": "STATUS", "HealthStatus": "HEALTH STATUS",
	"Size": "SIZE", "Labels": "LABELS", "Mounts": "MOUNTS", "LocalVolumes": "LOCAL VOLUMES", "Networks": "NETWORKS",
	"Platform": "PLATFORM",
}

const (
	containerTable = `table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}`
	containerRaw   = `container_id: {{.ID}}
image: {{.Image}}
command: {{.Command}}
created_at: {{.CreatedAt}}
state: {{- pad .State 1 0}}
status: {{- pad .Status 1 0}}
names: {{.Names}}
labels: {{- pad .Labels 1 0}}
ports: {{- pad .Ports 1 0}}
`
)

// format is the template that the options come to.
func (c Containers) format() Format {
	switch {
	case c.Quiet && c.Format == "raw":
		return "container_id: {{.ID}}"
	case c.Quiet:
		return "{{.ID}}"
	case c.Format == "raw" && c.Size:
		return containerRaw + "size: {{.Size}}\n"
	case c.Format == "raw":
		return containerRaw
	case (c.Format == "" || c.Format == "table") && c.Size:
		return containerTable + `\t{{.Size}}`
	case c.Format == "" || c.Format == "table":
		return containerTable
	}
	return c.Format
}

// Check parses the format and tries it on an empty container, so that a mistake shows also where there are no
// containers to list. wantsSize says that the format names the size, which is costly to find out.
func (c Containers) Check() (wantsSize bool, err error) {
	probe := &containerRow{now: c.Now}
	err = writeRows(io.Discard, c.format(), containerHeadings, []*containerRow{probe})
	return probe.sizeAsked && c.Format != "json", err
}

// Write prints the list.
func (c Containers) Write(w io.Writer, list []container.Summary) error {
	rows := make([]*containerRow, len(list))
	for i := range list {
		rows[i] = &containerRow{c: &list[i], full: c.NoTrunc, now: c.Now}
	}
	return writeRows(w, c.format(), containerHeadings, rows)
}

// containerRow is what a template sees of a container.
type containerRow struct {
	c         *container.Summary
	full      bool
	now       time.Time
	sizeAsked bool
}

// summary is the container, or an empty one in Check.
func (r *containerRow) summary() *container.Summary {
	if r.c == nil {
		return &container.Summary{}
	}
	return r.c
}

func (r *containerRow) MarshalJSON() ([]byte, error) { return object(r) }

func (r *containerRow) ID() string {
	if r.full {
		return r.summary().ID
	}
	return ShortID(r.summary().ID)
}

// Names are without their slash; names with one inside are docker's legacy links, shown with --no-trunc only.
func (r *containerRow) Names() string {
	var names []string
	for _, n := range r.summary().Names {
		n = strings.TrimPrefix(n, "/")
		if r.full || !strings.Contains(n, "/") {
			names = append(names, n)
		}
	}
	if !r.full && len(names) > 1 {
		names = names[:1]
	}
	return strings.Join(names, ",")
}

func (r *containerRow) Image() string {
	c := r.summary()
	switch {
	case c.Image == "":
		return "<no image>"
	case r.full:
		return c.Image
	case c.ImageID != "" && ShortID(c.Image) == ShortID(c.ImageID):
		return ShortID(c.ImageID)
	}
	name, tag, _ := splitReference(FamiliarName(c.Image))
	if tag != "" {
		name += ":" + tag
	}
	return name
}

func (r *containerRow) Command() string {
	s := r.summary().Command
	if !r.full {
		s = ellipsis(s, 20)
	}
	return strconv.Quote(s)
}

func (r *containerRow) CreatedAt() string  { return time.Unix(r.summary().Created, 0).String() }
func (r *containerRow) RunningFor() string { return age(r.summary().Created, r.now) }
func (r *containerRow) Ports() string      { return Ports(r.summary().Ports) }
func (r *containerRow) State() string      { return string(r.summary().State) }
func (r *containerRow) Status() string     { return r.summary().Status }

func (r *containerRow) HealthStatus() string {
	if h := r.summary().Health; h != nil && h.Status != container.NoHealthcheck {
		return string(h.Status)
	}
	return ""
}

// Size is what the container wrote and, in brackets, that and its image.
func (r *containerRow) Size() string {
	r.sizeAsked = true
	s := size(r.summary().SizeRw)
	if n := r.summary().SizeRootFs; n > 0 {
		s += " (virtual " + size(n) + ")"
	}
	return s
}

func (r *containerRow) Labels() string {
	var kv []string
	for k, v := range r.summary().Labels {
		kv = append(kv, k+"="+v)
	}
	slices.Sort(kv)
	return strings.Join(kv, ",")
}

func (r *containerRow) Label(name string) string { return r.summary().Labels[name] }

func (r *containerRow) Mounts() string {
	var names []string
	for _, m := range r.summary().Mounts {
		n := m.Name
		if n == "" {
			n = m.Source
		}
		if !r.full {
			n = ellipsis(n, 15)
		}
		names = append(names, n)
	}
	return strings.Join(names, ",")
}

func (r *containerRow) LocalVolumes() string {
	n := 0
	for _, m := range r.summary().Mounts {
		if m.Driver == "local" {
			n++
		}
	}
	return strconv.Itoa(n)
}

func (r *containerRow) Networks() string {
	var names []string
	if ns := r.summary().NetworkSettings; ns != nil {
		for n := range ns.Networks {
			names = append(names, n)
		}
	}
	slices.Sort(names)
	return strings.Join(names, ",")
}

// Platform is the one field that is no string in JSON: an object, or null where it is not known.
func (r *containerRow) Platform() *platform {
	if d := r.summary().ImageManifestDescriptor; d != nil && d.Platform != nil {
		return &platform{*d.Platform}
	}
	return nil
}

type platform struct{ ocispec.Platform }

func (p *platform) String() string {
	if p == nil {
		return ""
	}
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}
