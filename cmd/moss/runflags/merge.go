package runflags

import (
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Merge is docker's merge of an image's settings into the user's: his count, and what he leaves open the image fills. A
// new entrypoint takes the image's command with it.
func Merge(image *container.Config, p *Parsed) (*container.Config, error) {
	c := p.Config
	if c.User == "" {
		c.User = image.User
	}
	if len(c.Entrypoint) == 0 && !p.ResetEntrypoint {
		if len(c.Cmd) == 0 {
			c.Cmd = image.Cmd
		}
		c.Entrypoint = image.Entrypoint
	}
	if len(c.Entrypoint) == 0 && len(c.Cmd) == 0 {
		return nil, errors.New("no command specified")
	}
	if c.WorkingDir == "" {
		c.WorkingDir = image.WorkingDir
	}
	for _, kv := range image.Env {
		name, _, _ := strings.Cut(kv, "=")
		if !slices.ContainsFunc(c.Env, func(have string) bool { return strings.HasPrefix(have, name+"=") }) {
			c.Env = append(c.Env, kv)
		}
	}
	if len(image.ExposedPorts) > 0 && c.ExposedPorts == nil {
		c.ExposedPorts = network.PortSet{}
	}
	maps.Copy(c.ExposedPorts, image.ExposedPorts)
	if len(image.Volumes) > 0 && c.Volumes == nil {
		c.Volumes = map[string]struct{}{}
	}
	maps.Copy(c.Volumes, image.Volumes)
	for k, v := range image.Labels {
		if _, ok := c.Labels[k]; !ok {
			c.Labels[k] = v
		}
	}
	if c.StopSignal == "" {
		c.StopSignal = image.StopSignal
	}
	if c.Healthcheck == nil {
		c.Healthcheck = image.Healthcheck
	}
	return c, nil
}
