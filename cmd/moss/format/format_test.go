package format

import (
	"bytes"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n--- got\n%s--- want\n%s", name, got, want)
	}
}

func TestMain(m *testing.M) {
	time.Local = time.UTC
	os.Exit(m.Run())
}

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ago(d time.Duration) int64 { return now.Add(-d).Unix() }

var containers = []container.Summary{
	{
		ID: strings.Repeat("0123456789abcdef", 4), Names: []string{"/web"}, Image: "docker.io/library/nginx:1.27@sha256:" + strings.Repeat("ab", 32),
		ImageID: "sha256:" + strings.Repeat("cd", 32), Command: "/docker-entrypoint.sh nginx -g 'daemon off;'", Created: ago(5 * time.Minute),
		State: container.StateRunning, Status: "Up 5 minutes",
		Ports: []container.PortSummary{
			{IP: netip.MustParseAddr("0.0.0.0"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
			{IP: netip.MustParseAddr("::"), PrivatePort: 80, PublicPort: 8080, Type: "tcp"},
			{PrivatePort: 443, Type: "tcp"},
		},
		Labels: map[string]string{"com.example.some-key": "a<b", "b": "2"},
		Mounts: []container.MountPoint{
			{Type: "volume", Name: "data-of-the-web-server", Driver: "local", Destination: "/data"},
			{Type: "bind", Source: "/home/me/site", Destination: "/srv"},
		},
		NetworkSettings:         &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{"bridge": {}}},
		SizeRw:                  1095,
		SizeRootFs:              187_000_000,
		ImageManifestDescriptor: &ocispec.Descriptor{Platform: &ocispec.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
		Health:                  &container.HealthSummary{Status: container.Healthy},
	},
	{
		ID: strings.Repeat("fedcba9876543210", 4), Names: []string{"/quirky_curie", "/web/db"}, Image: "busybox", Command: "sh",
		ImageID: "sha256:" + strings.Repeat("ef", 32), Created: ago(49 * time.Hour), State: container.StateExited, Status: "Exited (3) 2 days ago",
	},
	{
		ID: strings.Repeat("aa", 32), Names: []string{"/by-id"}, Image: "sha256:" + strings.Repeat("ef", 32), Command: "überlange Befehlszeile hier",
		ImageID: "sha256:" + strings.Repeat("ef", 32), Created: ago(2 * time.Second), State: container.StateCreated, Status: "Created",
	},
}

func TestContainersArePrintedAsDockerPrintsThem(t *testing.T) {
	for name, c := range map[string]Containers{
		"ps":               {},
		"ps_size":          {Size: true},
		"ps_no_trunc":      {NoTrunc: true},
		"ps_quiet":         {Quiet: true},
		"ps_json":          {Format: "json"},
		"ps_raw":           {Format: "raw", Size: true},
		"ps_raw_quiet":     {Format: "raw", Quiet: true},
		"ps_own_table":     {Format: `table {{.Names}}\t{{upper .State}}\t{{.Label "com.example.some-key"}}\t{{.Mounts}}\t{{.LocalVolumes}}\t{{.Networks}}`},
		"ps_own_template":  {Format: `{{.ID}}\t{{json .Names}} {{.Platform}} {{.HealthStatus}} {{join (split .Ports ", ") "|"}} {{truncate .Image 3}}{{pad .State 1 2}}{{title .Status}}\n--`},
		"ps_println":       {Format: `{{println .Names}}{{.CreatedAt}}`},
		"ps_table_nothing": {Format: "table"},
	} {
		t.Run(name, func(t *testing.T) {
			c.Now = now
			list := containers
			if strings.HasSuffix(name, "nothing") {
				list = nil
			}
			var b bytes.Buffer
			if err := c.Write(&b, list); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.String())
		})
	}
}

func TestAWrongFormatIsAnErrorAndPrintsNothing(t *testing.T) {
	for _, f := range []Format{"{{.Nope}}", "{{.ID", "{{pad .ID -1 0}}x", "table {{.ID}}\t{{.Nope}}", "{{nope .ID}}", "{{truncate .ID -3}}"} {
		var b bytes.Buffer
		c := Containers{Format: f, Now: now}
		if err := c.Write(&b, containers); err == nil || b.Len() > 0 {
			t.Errorf("%q: error %v, output %q", f, err, b.String())
		}
		// pad leaves what is empty alone, so an empty container cannot show that its widths are wrong.
		if _, err := c.Check(); err == nil && !strings.Contains(string(f), "pad") && !strings.Contains(string(f), "truncate") {
			t.Errorf("%q: passed the check", f)
		}
	}
}

func TestOnlyAFormatThatNamesTheSizeAsksForIt(t *testing.T) {
	for f, want := range map[Format]bool{"": false, "json": false, "{{.ID}} {{.Size}}": true, `table {{.Size}}`: true, "{{json .}}": true, "raw": false} {
		if got, err := (Containers{Format: f}).Check(); got != want || err != nil {
			t.Errorf("%q: %v, %v", f, got, err)
		}
	}
}

func TestPortsAreMergedIntoRanges(t *testing.T) {
	four, six := netip.MustParseAddr("0.0.0.0"), netip.MustParseAddr("::")
	for want, ports := range map[string][]container.PortSummary{
		"": nil,
		"80-82/tcp": {
			{PrivatePort: 82, Type: "tcp"}, {PrivatePort: 80, Type: "tcp"}, {PrivatePort: 81, Type: "tcp"}},
		"80/tcp, 90/tcp, 80/udp": {
			{PrivatePort: 80, Type: "tcp"}, {PrivatePort: 80, Type: "udp"}, {PrivatePort: 90, Type: "tcp"}},
		"0.0.0.0:80-81->80-81/tcp, [::]:80->80/tcp, 0.0.0.0:9000->90/tcp": {
			{IP: four, PrivatePort: 80, PublicPort: 80, Type: "tcp"}, {IP: four, PrivatePort: 81, PublicPort: 81, Type: "tcp"},
			{IP: six, PrivatePort: 80, PublicPort: 80, Type: "tcp"}, {IP: four, PrivatePort: 90, PublicPort: 9000, Type: "tcp"}},
		"53/udp": {{PrivatePort: 53, Type: "udp"}, {PrivatePort: 53, Type: "udp"}},
	} {
		if got := Ports(ports); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

var images = []imagetypes.Summary{
	{
		ID: "sha256:" + strings.Repeat("0123456789abcdef", 4), RepoTags: []string{"docker.io/library/debian:12", "localhost:5000/debian:latest"},
		RepoDigests: []string{"docker.io/library/debian@sha256:" + strings.Repeat("12", 32)}, Created: ago(21 * 24 * time.Hour),
		Size: 117_000_000, Containers: 1, SharedSize: -1,
		Manifests: []imagetypes.ManifestSummary{{Size: struct {
			Content int64 `json:"Content"`
			Total   int64 `json:"Total"`
		}{Content: 48_500_000}}},
	},
	{ID: "sha256:" + strings.Repeat("ab", 32), RepoDigests: []string{"ghcr.io/a/b@sha256:" + strings.Repeat("34", 32)}, Size: 4_490_000, SharedSize: 90_000},
	{ID: "sha256:" + strings.Repeat("cd", 32), Created: ago(time.Minute), Size: 10},
}

func TestImagesArePrintedAsDockerPrintsThem(t *testing.T) {
	for name, im := range map[string]Images{
		"images_table":        {Format: "table"},
		"images_digests":      {Digests: true},
		"images_no_trunc":     {NoTrunc: true},
		"images_quiet":        {Quiet: true},
		"images_json":         {Format: "json"},
		"images_raw":          {Format: "raw"},
		"images_own_table":    {Format: `table {{.Repository}}:{{.Tag}}\t{{.Containers}}\t{{.SharedSize}}\t{{.UniqueSize}}`, Digests: true},
		"images_own_template": {Format: `{{.Repository}}@{{.Digest}}`},
	} {
		t.Run(name, func(t *testing.T) {
			im.Now = now
			if err := im.Check(); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if err := im.Write(&b, images); err != nil {
				t.Fatal(err)
			}
			golden(t, name, b.String())
		})
	}
}

func TestTheImageViewSortsByNameAndMarksWhatIsUsed(t *testing.T) {
	for name, v := range map[string]ImageView{"images": {}, "images_terminal": {Terminal: true, Width: 74}} {
		var b bytes.Buffer
		if err := v.Write(&b, images); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
	}
}

func TestInspectPrintsJSONOrATemplate(t *testing.T) {
	type object struct {
		ID    string `json:"Id"`
		State *struct{ Pid int }
		Env   []string
	}
	objects := []object{{ID: "a", Env: []string{"X=<1>&2"}}, {ID: "b", State: &struct{ Pid int }{7}}}
	for name, tc := range map[string]struct{ format, want string }{
		"one line":            {"json", `[{"Id":"a","State":null,"Env":["X=<1>&2"]},{"Id":"b","State":{"Pid":7},"Env":null}]` + "\n"},
		"a field of the type": {"{{.ID}}", "a\nb\n"},
		"a name of the JSON":  {"{{.Id}}", "a\nb\n"},
		"a function":          {"{{json .Env}}", "[\"X=<1>&2\"]\nnull\n"},
	} {
		t.Run(name, func(t *testing.T) {
			i, err := NewInspector(tc.format)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				if err := i.Add(o); err != nil {
					t.Fatal(err)
				}
			}
			var b bytes.Buffer
			if err := i.Flush(&b); err != nil || b.String() != tc.want {
				t.Errorf("got %q (%v), want %q", b.String(), err, tc.want)
			}
		})
	}
	t.Run("indented", func(t *testing.T) {
		i, _ := NewInspector("")
		for _, o := range objects {
			if err := i.Add(o); err != nil {
				t.Fatal(err)
			}
		}
		var b bytes.Buffer
		if err := i.Flush(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, "inspect", b.String())
	})
	t.Run("nothing found", func(t *testing.T) {
		for format, want := range map[string]string{"": "[]\n", "json": "[]\n", "{{.ID}}": "\n"} {
			i, _ := NewInspector(format)
			var b bytes.Buffer
			if err := i.Flush(&b); err != nil || b.String() != want {
				t.Errorf("%q: got %q (%v)", format, b.String(), err)
			}
		}
	})
	t.Run("no such name", func(t *testing.T) {
		i, _ := NewInspector("{{.Nope}}")
		if err := i.Add(objects[0]); err == nil || !strings.Contains(err.Error(), "template parsing error") {
			t.Errorf("got %v", err)
		}
		if _, err := NewInspector("{{.ID"); err == nil {
			t.Error("a template that does not parse was taken")
		}
	})
}

func FuzzFormat(f *testing.F) {
	for _, s := range []string{"", "json", "table {{.ID}}", "{{pad .ID 1 1}}", "{{truncate .Command 3}}", `{{join .Ports ""}}`, "{{title .Status}}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(s, "range") || strings.Contains(s, "template") || strings.Contains(s, "printf") {
			t.Skip("may run for ever by the user's own wish")
		}
		_ = Containers{Format: Format(s), Now: now}.Write(new(bytes.Buffer), containers)
	})
}
