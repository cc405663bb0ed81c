package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/moby/moby/api/types/system"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/moss-run/moss/cmd/moss/format"
)

// version is set by the linker: -X main.version=1.2.3.
var version = "0.1.0-dev"

// apiVersion is the version of docker's API whose types and words moss keeps.
const apiVersion = "1.52"

// versions are docker's two halves. moss has no daemon: what docker's does is done by the same program.
type versions struct {
	Client clientVersion
	Server system.VersionResponse
}

type clientVersion struct {
	Platform          system.PlatformInfo `json:",omitzero"`
	Version           string
	APIVersion        string `json:"ApiVersion"`
	DefaultAPIVersion string
	GitCommit         string
	GoVersion         string
	Os                string
	Arch              string
	BuildTime         string `json:",omitempty"`
	Context           string
}

func readVersions() versions {
	commit, built := revision()
	c := clientVersion{
		Platform: system.PlatformInfo{Name: "moss"}, Version: version, APIVersion: apiVersion, DefaultAPIVersion: apiVersion,
		GitCommit: commit, GoVersion: runtime.Version(), Os: runtime.GOOS, Arch: runtime.GOARCH, BuildTime: built, Context: "default",
	}
	return versions{Client: c, Server: system.VersionResponse{
		Platform: c.Platform, Version: version, APIVersion: apiVersion, MinAPIVersion: apiVersion, Os: c.Os, Arch: c.Arch,
		GitCommit: commit, GoVersion: c.GoVersion, KernelVersion: kernelRelease(), BuildTime: built,
		Components: []system.ComponentVersion{{Name: "Engine", Version: version, Details: map[string]string{
			"ApiVersion": apiVersion, "Arch": c.Arch, "GitCommit": commit, "GoVersion": c.GoVersion, "KernelVersion": kernelRelease(), "Os": c.Os,
		}}},
	}}
}

// revision is the commit that the program was built from, and its time, as the Go linker notes them.
func revision() (commit, when string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown", ""
	}
	commit = "unknown"
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			commit = s.Value[:min(len(s.Value), 12)]
		case "vcs.time":
			when = s.Value
		case "vcs.modified":
			if s.Value == "true" {
				commit += "-modified"
			}
		}
	}
	return commit, when
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

func newVersionCommand(a *app) *cobra.Command {
	var text string
	cmd := &cobra.Command{
		Use:                   "version [OPTIONS]",
		Short:                 "Show the moss version information",
		Example:               "  moss version --format '{{.Client.Version}}'",
		Args:                  noArguments,
		DisableFlagsInUseLine: true,
		RunE: func(*cobra.Command, []string) error {
			v := readVersions()
			if text != "" {
				return a.printOne(text, v)
			}
			var b strings.Builder
			fmt.Fprintf(&b, "moss:\n Version:           %s\n API version:       %s (docker's, whose words moss speaks)\n Go version:        %s\n Git commit:        %s\n",
				v.Client.Version, v.Client.APIVersion, v.Client.GoVersion, v.Client.GitCommit)
			if v.Client.BuildTime != "" {
				fmt.Fprintf(&b, " Built from:        %s\n", v.Client.BuildTime)
			}
			fmt.Fprintf(&b, " OS/Arch:           %s/%s\n Kernel:            %s\n Daemon:            none\n", v.Client.Os, v.Client.Arch, v.Server.KernelVersion)
			_, err := fmt.Fprint(a.stdout, b.String())
			return err
		},
	}
	cmd.Flags().StringVarP(&text, "format", "f", "", "Format output: 'json' or a Go template")
	return cmd
}

// printOne prints one object through --format.
func (a *app) printOne(text string, v any) error {
	if text == "json" {
		text = "{{json .}}"
	}
	i, err := format.NewInspector(text)
	if err != nil {
		return exitError{64, err}
	}
	if err := i.Add(v); err != nil {
		return err
	}
	return i.Flush(a.stdout)
}
