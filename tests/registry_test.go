package tests

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

// registryProcess is Debian's docker-registry, nil where the one in go-containerregistry stands in for it.
var registryProcess *exec.Cmd

func realRegistry() bool { return registryProcess != nil }

// startRegistry starts the registry of all stories on a free port of the loopback.
func startRegistry() error {
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		shared.registry = httptest.NewServer(quietRegistry()).Listener.Addr().String()
		return nil
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	shared.registry = l.Addr().String()
	l.Close()
	dir := filepath.Join(shared.tmp, "registry")
	config := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", dir, shared.registry)
	file := filepath.Join(shared.tmp, "registry.yml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(shared.tmp, "registry.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(program, "serve", file)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = []string{"HOME=" + shared.tmp, "OTEL_TRACES_EXPORTER=none"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	registryProcess = cmd
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if resp, err := http.Get("http://" + shared.registry + "/v2/"); err == nil {
			resp.Body.Close()
			return nil
		}
	}
	said, _ := os.ReadFile(log.Name())
	stopRegistry()
	return errors.New("docker-registry does not answer: " + string(said))
}

func stopRegistry() {
	if registryProcess != nil {
		_ = registryProcess.Process.Kill()
		_ = registryProcess.Wait()
	}
}

// quietRegistry is a registry in memory.
func quietRegistry() http.Handler {
	return registry.New(registry.Logger(nowhere))
}
