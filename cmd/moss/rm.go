package main

import (
	"bufio"
	"fmt"
	"strings"

	"github.com/docker/go-units"
	"github.com/spf13/cobra"

	"github.com/moss-run/moss/lifecycle"
)

func newRmCommand(a *app) *cobra.Command {
	var o lifecycle.RemoveOptions
	var link bool
	cmd := &cobra.Command{
		Use:     "rm [OPTIONS] CONTAINER [CONTAINER...]",
		Short:   "Remove one or more containers",
		Example: "  moss rm -f web",
		Args:    atLeast(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if link {
				return fmt.Errorf("flag --link is not supported by moss yet")
			}
			eng, err := a.engine()
			if err != nil {
				return err
			}
			return a.parallel(args, func(name string) error { return eng.Remove(cmd.Context(), name, o) })
		},
	}
	f := cmd.Flags()
	f.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	f.BoolVarP(&o.Volumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	f.BoolVarP(&link, "link", "l", false, "Remove the specified link")
	_ = f.MarkHidden("link")
	return cmd
}

func newContainerPruneCommand(a *app) *cobra.Command {
	var force bool
	var filters []string
	cmd := &cobra.Command{
		Use:     "prune [OPTIONS]",
		Short:   "Remove all stopped containers",
		Example: "  moss container prune -f",
		Args:    noArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			eng, err := a.engine()
			if err != nil {
				return err
			}
			byKey := map[string][]string{}
			for _, s := range filters {
				k, v, ok := strings.Cut(s, "=")
				if !ok {
					return fmt.Errorf("invalid argument %q for \"--filter\" flag: invalid filter '%s': it has the form key=value", s, s)
				}
				byKey[k] = append(byKey[k], v)
			}
			if !force {
				fmt.Fprint(a.stdout, "WARNING! This will remove all stopped containers.\nAre you sure you want to continue? [y/N] ")
				answer, _ := bufio.NewReader(a.stdin).ReadString('\n')
				if y := strings.ToLower(strings.TrimSpace(answer)); y != "y" && y != "yes" {
					return exitError{1, fmt.Errorf("container prune has been cancelled")}
				}
			}
			rep, err := eng.Prune(cmd.Context(), byKey)
			if err != nil {
				return engineError(err)
			}
			if len(rep.ContainersDeleted) > 0 {
				fmt.Fprintln(a.stdout, "Deleted Containers:\n"+strings.Join(rep.ContainersDeleted, "\n")+"\n")
			}
			fmt.Fprintln(a.stdout, "Total reclaimed space:", units.HumanSize(float64(rep.SpaceReclaimed)))
			return nil
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "Provide filter values (e.g. \"until=<timestamp>\")")
	return cmd
}
