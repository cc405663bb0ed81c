package lifecycle

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/containerd/errdefs"
)

// nameRule is docker's rule for names of containers and volumes.
var nameRule = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// newID makes a container's id: 64 hex digits whose first 12 are not all decimal, since they are the default
// hostname, and a hostname that is a number confuses resolvers.
func newID() string {
	for {
		var b [32]byte
		rand.Read(b[:])
		id := hex.EncodeToString(b[:])
		if strings.ContainsAny(id[:12], "abcdef") {
			return id
		}
	}
}

// claimName gives name to id. A name is a symlink below root/names whose text is the id: making one is atomic, and
// fails when it is there, on every file system. A claim whose container is gone is taken over.
func (e *Engine) claimName(name, id string) error {
	if !nameRule.MatchString(name) {
		return failure(errdefs.ErrInvalidArgument, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	if err := os.MkdirAll(e.names(), 0o700); err != nil {
		return err
	}
	link := filepath.Join(e.names(), name)
	for range 8 {
		err := os.Symlink(id, link)
		if err == nil {
			return nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return err
		}
		owner, err := os.Readlink(link)
		if errors.Is(err, fs.ErrNotExist) {
			continue // given back just now
		}
		if err != nil {
			return err
		}
		if e.claimStands(owner) {
			return failure(errdefs.ErrConflict, "Conflict. The container name %q is already in use by container %q. You have to remove (or rename) that container to be able to reuse that name.", "/"+name, owner)
		}
		if err := e.dropName(name, owner); err != nil {
			return err
		}
	}
	return failure(errdefs.ErrConflict, "name %q changes hands too often", name)
}

// claimStands says whether the container that a name was given to is there, or is being made at this moment: its
// folder comes before its claim and stays empty only for the blink until its record is in it.
func (e *Engine) claimStands(id string) bool {
	if _, err := os.Lstat(e.dir(id).config()); err == nil {
		return true
	}
	fi, err := os.Lstat(string(e.dir(id)))
	return err == nil && time.Since(fi.ModTime()) < time.Minute
}

// dropName gives a name back, if it still is id's. The claim is renamed away first: of two processes that drop a
// stale claim only one gets it, so neither can remove a third one's fresh claim.
func (e *Engine) dropName(name, id string) error {
	link := filepath.Join(e.names(), name)
	if owner, err := os.Readlink(link); err != nil || owner != id {
		return nil
	}
	away := filepath.Join(e.names(), ".drop-"+id+"-"+name)
	if err := os.Rename(link, away); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}
	if owner, err := os.Readlink(away); err == nil && owner != id {
		// Somebody claimed it between the two looks: put the claim back.
		if err := os.Rename(away, link); err != nil {
			return err
		}
		return nil
	}
	return os.Remove(away)
}

// inventName claims a made-up name: six tries, a digit behind it from the second on, at last the short id.
func (e *Engine) inventName(id string) (string, error) {
	for i := range 6 {
		name := adjectives[mrand.IntN(len(adjectives))] + "_" + surnames[mrand.IntN(len(surnames))]
		if name == "boring_wozniak" { // docker's rule: Steve Wozniak is not boring
			continue
		}
		if i > 0 {
			name += fmt.Sprint(mrand.IntN(10))
		}
		err := e.claimName(name, id)
		if err == nil || !errors.Is(err, errdefs.ErrConflict) {
			return name, err
		}
	}
	return id[:12], e.claimName(id[:12], id)
}

// find turns what a user types into an id: a full id, a name, or a prefix of just one id.
func (e *Engine) find(nameOrID string) (string, error) {
	missing := failure(errdefs.ErrNotFound, "No such container: %s", nameOrID)
	key := strings.TrimPrefix(nameOrID, "/")
	if key == "" || strings.ContainsAny(key, "/\x00") || strings.HasPrefix(key, ".") {
		return "", missing
	}
	if isID(key) {
		if _, err := os.Lstat(e.dir(key).config()); err == nil {
			return key, nil
		}
	}
	if id, err := os.Readlink(filepath.Join(e.names(), key)); err == nil {
		if _, err := os.Lstat(e.dir(id).config()); err == nil {
			return id, nil
		}
	}
	ids, err := e.ids()
	if err != nil {
		return "", err
	}
	found := ""
	for _, id := range ids {
		if !strings.HasPrefix(id, key) {
			continue
		}
		if found != "" {
			return "", failure(errdefs.ErrInvalidArgument, "multiple IDs found with provided prefix: %s", nameOrID)
		}
		found = id
	}
	if found == "" {
		return "", missing
	}
	return found, nil
}

// ids lists the containers there are, in no order of meaning.
func (e *Engine) ids() ([]string, error) {
	f, err := os.Open(e.containers())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	all, err := f.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	ids := all[:0]
	for _, n := range all {
		if isID(n) {
			ids = append(ids, n)
		}
	}
	return ids, nil
}

func isID(s string) bool {
	if len(s) != 64 {
		return false
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
