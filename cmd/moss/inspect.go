package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/spf13/cobra"

	"github.com/moss-run/moss/cmd/moss/format"
)

const inspectFormatHelp = `Format output: 'json' or a Go template`

func newInspectCommand(a *app) *cobra.Command {
	var text, kind string
	var size bool
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] NAME|ID [NAME|ID...]",
		Short:                 "Return low-level information on containers and images",
		Example:               "  moss inspect -f '{{.State.ExitCode}}' web\n  moss inspect --type image debian",
		Args:                  atLeast(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			var get func(context.Context, string) (any, error)
			switch kind {
			case "container":
				get = a.inspectContainer(size)
			case "image":
				get = a.inspectImage("")
			case "":
				if cmd.Flags().Changed("type") {
					return errors.New(`type is empty: must be one of "container", "image"`)
				}
				get = a.inspectAny(size)
			case "network", "volume", "config", "node", "plugin", "secret", "service", "task":
				return fmt.Errorf("moss inspect --type %s is not supported by moss yet", kind)
			default:
				return fmt.Errorf(`unknown type: %q: must be one of "container", "image"`, kind)
			}
			return a.inspect(cmd.Context(), text, args, get)
		},
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", inspectFormatHelp)
	cmd.Flags().StringVar(&kind, "type", "", "Only inspect objects of the given type")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	return cmd
}

func newContainerInspectCommand(a *app) *cobra.Command {
	var text string
	var size bool
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] CONTAINER [CONTAINER...]",
		Short:                 "Display detailed information on one or more containers",
		Args:                  atLeast(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), text, args, a.inspectContainer(size))
		},
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", inspectFormatHelp)
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes")
	return cmd
}

func newImageInspectCommand(a *app) *cobra.Command {
	var text, platform string
	cmd := &cobra.Command{
		Use:                   "inspect [OPTIONS] IMAGE [IMAGE...]",
		Short:                 "Display detailed information on one or more images",
		Args:                  atLeast(1),
		DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.inspect(cmd.Context(), text, args, a.inspectImage(platform))
		},
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", inspectFormatHelp)
	cmd.Flags().StringVar(&platform, "platform", "", "Inspect a specific platform of the image (os/arch[/variant])")
	return cmd
}

// inspect prints what was found of the names, and then complains of the others.
func (a *app) inspect(ctx context.Context, text string, names []string, get func(context.Context, string) (any, error)) error {
	i, err := format.NewInspector(text)
	if err != nil {
		return exitError{64, err}
	}
	var errs []error
	for _, name := range names {
		v, err := get(ctx, name)
		if err == nil {
			err = i.Add(v)
		}
		if err != nil {
			errs = append(errs, err)
		}
	}
	if err := i.Flush(a.stdout); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func (a *app) inspectContainer(size bool) func(context.Context, string) (any, error) {
	return func(ctx context.Context, name string) (any, error) {
		eng, err := a.engine()
		if err != nil {
			return nil, err
		}
		v, err := eng.Inspect(ctx, name, size)
		if err != nil {
			return nil, engineError(err)
		}
		return v, nil
	}
}

func (a *app) inspectImage(platform string) func(context.Context, string) (any, error) {
	return func(ctx context.Context, name string) (any, error) {
		store, err := a.images()
		if err != nil {
			return nil, err
		}
		v, err := store.Inspect(ctx, name, platform)
		if err != nil {
			return nil, engineError(err)
		}
		return v, nil
	}
}

// inspectAny looks for a container first, then for an image.
func (a *app) inspectAny(size bool) func(context.Context, string) (any, error) {
	return func(ctx context.Context, name string) (any, error) {
		for _, get := range []func(context.Context, string) (any, error){a.inspectContainer(size), a.inspectImage("")} {
			v, err := get(ctx, name)
			// What cannot be a name of an image is none.
			if errors.Is(err, errdefs.ErrNotFound) || errors.Is(err, errdefs.ErrInvalidArgument) {
				continue
			}
			return v, err
		}
		return nil, fmt.Errorf("error: no such object: %s", name)
	}
}
