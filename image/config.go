package image

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// Config is ~/.config/moss/config.toml.
//
//	timeout = "30s"                       # how long a registry may stay silent
//
//	[registries."docker.io"]
//	mirrors = ["mirror.example:5000"]     # asked first, in this order
//
//	[registries."mirror.example:5000"]
//	insecure = true                       # http, or https with a certificate that nobody vouches for
type Config struct {
	Timeout    duration                  `toml:"timeout"`
	Registries map[string]RegistryConfig `toml:"registries"`
}

// RegistryConfig is about one registry, by host[:port].
type RegistryConfig struct {
	Mirrors  []string `toml:"mirrors"`
	Insecure bool     `toml:"insecure"`
}

type duration time.Duration

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = duration(v)
	return err
}

// DefaultRoot is where images and containers are: $MOSS_ROOT, else ${XDG_DATA_HOME:-~/.local/share}/moss.
func DefaultRoot() string {
	if r := os.Getenv("MOSS_ROOT"); r != "" {
		return r
	}
	if x := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(x) {
		return filepath.Join(x, "moss")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/"
	}
	return filepath.Join(home, ".local/share/moss")
}

// LoadConfig reads the user's configuration. A file that is not there is an empty one.
func LoadConfig() (Config, error) {
	var c Config
	dir, err := os.UserConfigDir()
	if err != nil {
		return c, nil
	}
	p := filepath.Join(dir, "moss", "config.toml")
	text, err := os.ReadFile(p)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, err
	}
	meta, err := toml.Decode(string(text), &c)
	if err != nil {
		return c, fmt.Errorf("%s: %w", p, err)
	}
	if unknown := meta.Undecoded(); len(unknown) > 0 {
		return c, fmt.Errorf("%s: unknown setting %q; there are timeout and registries.\"host\".{mirrors,insecure}", p, unknown[0].String())
	}
	return c, nil
}

func (c Config) timeout() time.Duration {
	if c.Timeout > 0 {
		return time.Duration(c.Timeout)
	}
	return 30 * time.Second
}

// insecure says whether a registry may be spoken to without a trusted certificate: this machine, and what is named so.
func (c Config) insecure(host string) bool {
	if c.Registries[host].Insecure {
		return true
	}
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	ip := net.ParseIP(strings.Trim(name, "[]"))
	return name == "localhost" || ip != nil && ip.IsLoopback()
}

// sources are the registries to ask for what is at host: its mirrors, and then itself.
func (c Config) sources(host string) []string {
	return append(append([]string{}, c.Registries[host].Mirrors...), host)
}
