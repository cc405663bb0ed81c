package main

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moss-run/moss/cmd/moss/format"
	"github.com/moss-run/moss/lifecycle"
)

func newImagesCommand(a *app, use string) *cobra.Command {
	var all, quiet, noTrunc, digests bool
	var text string
	filters := filterFlag{}
	cmd := &cobra.Command{
		Use:                   use + " [OPTIONS] [REPOSITORY[:TAG]]",
		Short:                 "List images",
		Example:               "  moss images\n  moss images --filter dangling=true -q",
		Args:                  atMostOneArgument,
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				filters["reference"] = append(filters["reference"], args[0])
			}
			table := format.Images{Format: format.Format(text), Quiet: quiet, Digests: digests, NoTrunc: noTrunc, Now: time.Now()}
			if err := table.Check(); err != nil {
				return err
			}
			store, err := a.images()
			if err != nil {
				return err
			}
			list, err := store.List()
			if err != nil {
				return engineError(err)
			}
			if list, err = filterImages(list, filters, all, table.Now); err != nil {
				return engineError(err)
			}
			if err := a.countContainers(cmd.Context(), list); err != nil {
				return err
			}
			if text != "" || quiet || noTrunc || digests {
				return table.Write(a.stdout, list)
			}
			return a.imageView().Write(a.stdout, list)
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&all, "all", "a", false, "Show all images (default hides intermediate and dangling images)")
	f.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	f.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	f.BoolVar(&digests, "digests", false, "Show digests")
	f.StringVar(&text, "format", "", formatHelp)
	f.VarP(filters, "filter", "f", "Filter output based on conditions provided")
	return cmd
}

// imageView fits docker's newer listing to the terminal, if stdout is one.
func (a *app) imageView() format.ImageView {
	v := format.ImageView{}
	if f, ok := a.stdout.(interface{ Fd() uintptr }); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil {
			v.Width, v.Terminal = w, wantsColor(a.stdout)
		}
	}
	return v
}

// countContainers fills in how many containers there are of each image.
func (a *app) countContainers(ctx context.Context, list []imagetypes.Summary) error {
	eng, err := a.engine()
	if err != nil {
		return err
	}
	containers, err := eng.List(ctx, lifecycle.ListOptions{All: true})
	if err != nil {
		return engineError(err)
	}
	count := map[string]int64{}
	for _, c := range containers {
		count[c.ImageID]++
	}
	for i := range list {
		list[i].Containers = count[list[i].ID]
	}
	return nil
}

// filterImages keeps what all of the filters let through. The values of one key are alternatives, except labels. Without
// all, images that no name leads to are left out, unless dangling ones are asked for.
func filterImages(list []imagetypes.Summary, filters filterFlag, all bool, now time.Time) ([]imagetypes.Summary, error) {
	var before, since, until time.Time
	var dangling *bool
	for key, values := range filters {
		for _, v := range values {
			bad := fmt.Errorf("%w: invalid filter '%s=%s'", errdefs.ErrInvalidArgument, key, v)
			switch key {
			case "dangling":
				b, err := strconv.ParseBool(v)
				if err != nil {
					return nil, bad
				}
				dangling = &b
			case "reference":
				if _, err := path.Match(v, ""); err != nil {
					return nil, bad
				}
			case "before", "since":
				i := slices.IndexFunc(list, func(s imagetypes.Summary) bool { return isCalled(s, v) })
				if i < 0 {
					return nil, fmt.Errorf("%w: No such image: %s", errdefs.ErrNotFound, v)
				}
				if key == "before" {
					before = time.Unix(list[i].Created, 0)
				} else {
					since = time.Unix(list[i].Created, 0)
				}
			case "until":
				t, err := parseTime(v, now)
				if err != nil {
					return nil, bad
				}
				until = t
			case "label":
			default:
				return nil, fmt.Errorf("%w: invalid filter '%s'", errdefs.ErrInvalidArgument, key)
			}
		}
	}
	out := []imagetypes.Summary{}
	for _, s := range list {
		created := time.Unix(s.Created, 0)
		switch {
		case dangling != nil && *dangling != (len(s.RepoTags) == 0),
			dangling == nil && !all && len(s.RepoTags) == 0,
			!before.IsZero() && !created.Before(before),
			!since.IsZero() && !created.After(since),
			!until.IsZero() && !created.Before(until),
			slices.ContainsFunc(filters["label"], func(l string) bool { return !hasLabel(s.Labels, l) }):
			continue
		}
		if patterns := filters["reference"]; len(patterns) > 0 {
			matches := func(ref string) bool {
				return slices.ContainsFunc(patterns, func(p string) bool { return matchesReference(p, ref) })
			}
			// Only the names that match are shown.
			s.RepoTags = slices.DeleteFunc(slices.Clone(s.RepoTags), func(r string) bool { return !matches(r) })
			s.RepoDigests = slices.DeleteFunc(slices.Clone(s.RepoDigests), func(r string) bool { return !matches(r) })
			if len(s.RepoTags)+len(s.RepoDigests) == 0 {
				continue
			}
		}
		out = append(out, s)
	}
	return out, nil
}

func hasLabel(labels map[string]string, want string) bool {
	key, value, withValue := strings.Cut(want, "=")
	have, ok := labels[key]
	return ok && (!withValue || have == value)
}

// isCalled says whether one of an image's names, or the beginning of its id, is name.
func isCalled(s imagetypes.Summary, name string) bool {
	hex := strings.TrimPrefix(name, "sha256:")
	if len(hex) >= 4 && strings.HasPrefix(strings.TrimPrefix(s.ID, "sha256:"), hex) {
		return true
	}
	want := format.FamiliarName(name)
	return slices.ContainsFunc(slices.Concat(s.RepoTags, s.RepoDigests), func(r string) bool {
		r = format.FamiliarName(r)
		return r == want || r == want+":latest"
	})
}

// matchesReference matches a shell pattern with a name as people write it, with or without its tag or digest.
func matchesReference(pattern, ref string) bool {
	name := format.FamiliarName(ref)
	repository, _, _ := strings.Cut(name, "@")
	if i := strings.LastIndexByte(repository, ':'); i > strings.LastIndexByte(repository, '/') {
		repository = repository[:i]
	}
	pattern = format.FamiliarName(pattern)
	full, _ := path.Match(pattern, name)
	short, _ := path.Match(pattern, repository)
	return full || short
}
