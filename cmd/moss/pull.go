package main

import (
	"fmt"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/moss-run/moss/image"
)

func newPullCommand(a *app) *cobra.Command {
	var quiet, allTags bool
	var platform string
	cmd := &cobra.Command{
		Use:     "pull [OPTIONS] NAME[:TAG|@DIGEST]",
		Short:   "Download an image from a registry",
		Example: "  moss pull debian:bookworm",
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if allTags {
				return fmt.Errorf("flag --all-tags is not supported by moss yet")
			}
			ref, err := image.ParseReference(args[0])
			if err != nil {
				return err
			}
			if !image.HasTagOrDigest(args[0]) && !quiet {
				fmt.Fprintln(a.stdout, "Using default tag: latest")
			}
			store, err := a.images()
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			if _, err := store.Pull(ctx, ref, image.PullOptions{Platform: platform, Progress: a.progress(a.stdout, quiet)}); err != nil {
				if ctx.Err() != nil {
					return exitError{130, nil}
				}
				return engineError(err)
			}
			fmt.Fprintln(a.stdout, ref)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	f.BoolVarP(&allTags, "all-tags", "a", false, "Download all tagged images in the repository")
	_ = f.MarkHidden("all-tags")
	f.StringVar(&platform, "platform", "", "Set platform if server is multi-platform capable")
	return cmd
}

func newTagCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]",
		Short:   "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Example: "  moss tag debian:bookworm mine:1",
		Args:    exactly(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.images()
			if err != nil {
				return err
			}
			return engineError(store.Tag(cmd.Context(), args[0], args[1]))
		},
	}
}

func newRmiCommand(a *app, use string) *cobra.Command {
	var force, noPrune bool
	cmd := &cobra.Command{
		Use:     use + " [OPTIONS] IMAGE [IMAGE...]",
		Short:   "Remove one or more images",
		Example: "  moss rmi debian:bookworm",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.images()
			if err != nil {
				return err
			}
			eng, err := a.engine()
			if err != nil {
				return err
			}
			return a.each(args, func(name string) error {
				done, err := store.Remove(cmd.Context(), name, image.RemoveOptions{Force: force, InUse: eng.ImageInUse})
				for _, d := range done {
					if d.Untagged != "" {
						fmt.Fprintln(a.stdout, "Untagged: "+d.Untagged)
					} else {
						fmt.Fprintln(a.stdout, "Deleted: "+d.Deleted)
					}
				}
				if force && isNotFound(err) {
					return nil
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force removal of the image")
	cmd.Flags().BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	return cmd
}
