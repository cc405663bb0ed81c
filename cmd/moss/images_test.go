package main

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	imagetypes "github.com/moby/moby/api/types/image"
)

func TestFilterFlagsAreGatheredByKey(t *testing.T) {
	f := filterFlag{}
	for _, s := range []string{"status=exited", " Status = running ", "label=a=b", ""} {
		if err := f.Set(s); err != nil {
			t.Fatal(err)
		}
	}
	if got := f.String(); got != "label=a=b,status=exited,status=running" {
		t.Errorf("got %s", got)
	}
	if err := f.Set("exited"); err == nil {
		t.Error("a filter without a value was taken")
	}
}

func TestImagesAreFilteredAsDockerDoes(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	day := func(n int) int64 { return now.AddDate(0, 0, -n).Unix() }
	list := []imagetypes.Summary{
		{ID: "sha256:aaaa" + strings.Repeat("0", 60), RepoTags: []string{"debian:12", "debian:latest"}, Created: day(3), Labels: map[string]string{"k": "v"}},
		{ID: "sha256:bbbb" + strings.Repeat("0", 60), RepoTags: []string{"localhost:5000/team/app:1"}, Created: day(2)},
		{ID: "sha256:cccc" + strings.Repeat("0", 60), Created: day(1), Labels: map[string]string{"k": "w"}},
	}
	for _, tc := range []struct {
		filters string
		all     bool
		want    string
	}{
		{"", false, "a b"},
		{"", true, "a b c"},
		{"dangling=true", false, "c"},
		{"dangling=false", true, "a b"},
		{"label=k", true, "a c"},
		{"label=k=v", true, "a"},
		{"label=k label=k=w", true, "c"},
		{"reference=debian", false, "a"},
		{"reference=docker.io/library/debian:12", false, "a"},
		{"reference=localhost:5000/*/app", false, "b"},
		{"reference=*:1* reference=nothing", false, "a"},
		{"before=localhost:5000/team/app:1", false, "a"},
		{"since=debian", true, "b c"},
		{"since=aaaa", false, "b"},
		{"until=36h", true, "a b"},
	} {
		f := filterFlag{}
		for _, s := range strings.Fields(tc.filters) {
			if err := f.Set(s); err != nil {
				t.Fatal(err)
			}
		}
		got, err := filterImages(list, f, tc.all, now)
		var ids []string
		for _, s := range got {
			ids = append(ids, s.ID[7:8])
		}
		if err != nil || strings.Join(ids, " ") != tc.want {
			t.Errorf("%q all=%v: %v (%v), want %s", tc.filters, tc.all, ids, err, tc.want)
		}
	}
	got, err := filterImages(list, filterFlag{"reference": {"debian:12"}}, false, now)
	if err != nil || len(got) != 1 || !slices.Equal(got[0].RepoTags, []string{"debian:12"}) {
		t.Errorf("names that do not match are shown: %+v, %v", got, err)
	}
	if len(list[0].RepoTags) != 2 {
		t.Error("the caller's list was changed")
	}
	for f, want := range map[string]error{"nope=1": errdefs.ErrInvalidArgument, "dangling=perhaps": errdefs.ErrInvalidArgument, "reference=[": errdefs.ErrInvalidArgument, "since=gone": errdefs.ErrNotFound, "until=soon": errdefs.ErrInvalidArgument} {
		k, v, _ := strings.Cut(f, "=")
		if _, err := filterImages(list, filterFlag{k: {v}}, false, now); !errors.Is(err, want) {
			t.Errorf("%s: %v", f, err)
		}
	}
}
