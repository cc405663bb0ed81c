// Command moss runs containers for people who have no root, in docker's words.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moss-run/moss/image"
)

// roles are the processes that this binary can be beside the command line, by argv[0].
var roles = map[string]func(){}

// started is when this process began to run its own code.
var started = time.Now()

func main() {
	if run, ok := roles[filepath.Base(os.Args[0])]; ok {
		run()
		return
	}
	os.Exit(execute(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// execute runs one command line and returns its exit code.
func execute(args []string, stdin *os.File, stdout, stderr io.Writer) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, root: image.DefaultRoot()}
	root := newRootCommand(a)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	if err == nil {
		return 0
	}
	var exit exitError
	if !errors.As(err, &exit) {
		exit = exitError{code: 1, err: err}
	}
	if exit.err != nil {
		printError(stderr, cmd, exit)
	}
	return exit.code
}

// printError prints an error as docker does. Wrong flags and failures of run and create come with the way to the help.
func printError(w io.Writer, cmd *cobra.Command, e exitError) {
	text := plain(e.err)
	switch {
	case e.code == 125 || e.code == 126 || e.code == 127:
		fmt.Fprintf(w, "moss: %s\n\nRun '%s --help' for more information\n", text, cmd.CommandPath())
	default:
		fmt.Fprintf(w, "%s\n", text)
	}
}

// newRootCommand is the whole command tree, in both of docker's spellings.
func newRootCommand(a *app) *cobra.Command {
	root := &cobra.Command{
		Use: "moss [OPTIONS] COMMAND", Short: "Containers for people who have no root",
		Long:          "moss runs containers without root, without a daemon, from one binary that keeps everything in your home.",
		SilenceErrors: true, SilenceUsage: true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
		Version:           version,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exitError{1, fmt.Errorf("moss: unknown command: moss %s\n\nRun 'moss --help' for more information", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	root.SetVersionTemplate("moss version {{.Version}}\n")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return exitError{125, err} })
	root.PersistentFlags().StringVar(&a.root, "root", a.root, "Folder that images and containers are kept in (MOSS_ROOT)")

	root.AddCommand(
		newRunCommand(a), newCreateCommand(a), newStartCommand(a), newPsCommand(a, "ps"), newLogsCommand(a),
		newWaitCommand(a), newStopCommand(a), newKillCommand(a), newRmCommand(a), newInspectCommand(a),
		newPullCommand(a), newImagesCommand(a, "images"), newRmiCommand(a, "rmi"), newTagCommand(a),
		newDoctorCommand(a), newVersionCommand(a), newInfoCommand(a),
	)
	ctr := group("container", "Manage containers")
	ctr.AddCommand(
		newRunCommand(a), newCreateCommand(a), newStartCommand(a), aliased(newPsCommand(a, "ls"), "list", "ps"), newLogsCommand(a),
		newWaitCommand(a), newStopCommand(a), newKillCommand(a), aliased(newRmCommand(a), "remove"), newContainerInspectCommand(a),
		newContainerPruneCommand(a),
	)
	img := group("image", "Manage images")
	img.AddCommand(
		newPullCommand(a), aliased(newImagesCommand(a, "ls"), "list"), aliased(newRmiCommand(a, "rm"), "remove"), newTagCommand(a),
		newImageInspectCommand(a),
	)
	root.AddCommand(ctr, img)
	usageAsWritten(root)
	return root
}

// usageAsWritten keeps cobra from adding "[flags]" to usage lines that say [OPTIONS] already.
func usageAsWritten(c *cobra.Command) {
	c.DisableFlagsInUseLine = true
	for _, sub := range c.Commands() {
		usageAsWritten(sub)
	}
}

func group(name, short string) *cobra.Command {
	return &cobra.Command{Use: name, Short: short,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return exitError{1, fmt.Errorf("moss: unknown command: %s %s\n\nRun '%s --help' for more information", cmd.CommandPath(), args[0], cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
}

func aliased(c *cobra.Command, names ...string) *cobra.Command {
	c.Aliases = names
	return c
}

// plain is an error's text without the classes that it carries for errors.Is: "not found: No such container: x" is for
// programs, "No such container: x" for people.
func plain(err error) string {
	text := err.Error()
	for _, class := range []string{"not found", "invalid argument", "unavailable", "permission denied", "already exists", "failed precondition"} {
		text = strings.ReplaceAll(text, ": "+class+": ", ": ")
		text = strings.TrimPrefix(text, class+": ")
	}
	return text
}
