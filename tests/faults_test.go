package tests

import (
	"bytes"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

var nowhere = log.New(io.Discard, "", 0)

// startFaults starts a registry that goes wrong. The first folder of a repository says how: hang/busybox is the image
// busybox, and its manifest never comes. See misbehave.
func startFaults() {
	good := quietRegistry()
	s := httptest.NewUnstartedServer(misbehave(good))
	s.Config.ErrorLog = nowhere
	s.Start()
	shared.faults = s.Listener.Addr().String()
	t := httptest.NewUnstartedServer(good)
	t.Config.ErrorLog = nowhere
	t.StartTLS()
	shared.tls = t.Listener.Addr().String()
	p := httptest.NewServer(private(good))
	shared.private = p.Listener.Addr().String()
}

// private asks for the user alice and the password secret, at every request.
func private(good http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user == "alice" && password == "secret" {
			good.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="stories"`)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	})
}

func misbehave(good http.Handler) http.Handler {
	var mu sync.Mutex
	asked := map[string]int{} // how often a path was asked for
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rest, ok := strings.CutPrefix(r.URL.Path, "/v2/")
		fault, path, nested := strings.Cut(rest, "/")
		if !ok || !nested || r.Method != http.MethodGet && r.Method != http.MethodHead {
			good.ServeHTTP(w, r)
			return
		}
		mu.Lock()
		asked[r.URL.Path]++
		first := asked[r.URL.Path] == 1
		mu.Unlock()
		isManifest := strings.Contains(path, "/manifests/")
		// The good registry's answer, to do something to.
		answer := func() *httptest.ResponseRecorder {
			q := r.Clone(r.Context())
			q.URL.Path = "/v2/" + path
			q.Header.Del("Range")
			a := httptest.NewRecorder()
			good.ServeHTTP(a, q)
			return a
		}
		give := func(a *httptest.ResponseRecorder, body []byte) {
			for k, v := range a.Header() {
				w.Header()[k] = v
			}
			w.WriteHeader(a.Code)
			_, _ = w.Write(body)
		}
		// A layer is told from a configuration by its bytes: the stories' layers are gzip.
		isLayer := func(a *httptest.ResponseRecorder) bool {
			return strings.Contains(path, "/blobs/") && bytes.HasPrefix(a.Body.Bytes(), []byte{0x1f, 0x8b})
		}
		switch fault {
		case "error500": // nothing works
			http.Error(w, "out of order", http.StatusInternalServerError)
		case "layer500": // the layer does not
			if a := answer(); isLayer(a) {
				http.Error(w, "out of order", http.StatusInternalServerError)
			} else {
				give(a, a.Body.Bytes())
			}
		case "hang": // never an answer
			if isManifest {
				<-r.Context().Done()
			}
		case "stall": // half a layer, and then silence
			a := answer()
			if !isLayer(a) {
				give(a, a.Body.Bytes())
				return
			}
			give(a, a.Body.Bytes()[:a.Body.Len()/2])
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		case "cut", "cutonce": // half a layer, and the connection ends
			a := answer()
			if !isLayer(a) || fault == "cutonce" && !first {
				give(a, a.Body.Bytes())
				return
			}
			give(a, a.Body.Bytes()[:a.Body.Len()/2])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		case "slow": // so slow that there is time to press Ctrl-C
			a := answer()
			if !isLayer(a) {
				give(a, a.Body.Bytes())
				return
			}
			w.Header().Set("Content-Length", a.Header().Get("Content-Length"))
			for b := a.Body.Bytes(); len(b) > 0 && r.Context().Err() == nil; time.Sleep(50 * time.Millisecond) {
				n := min(len(b), 2048)
				_, _ = w.Write(b[:n])
				w.(http.Flusher).Flush()
				b = b[n:]
			}
		case "flipped": // a bit of the layer is another one
			a := answer()
			b := bytes.Clone(a.Body.Bytes())
			if isLayer(a) {
				b[len(b)/2] ^= 1
			}
			give(a, b)
		case "garbage": // the manifest is none
			a := answer()
			if isManifest {
				w.Header().Set("Content-Type", a.Header().Get("Content-Type"))
				_, _ = io.WriteString(w, `{"schemaVersion": 2, "layers": [[[`)
				return
			}
			give(a, a.Body.Bytes())
		default:
			good.ServeHTTP(w, r)
		}
	})
}
