package main

import (
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// A far is an upstream with one account, which judges what it is sent.
type far struct {
	token   string
	account wire.WorkerAccount

	mu     sync.Mutex
	wrong  []string
	task   *wire.ClaimedTask // to be done; Attempt counts the claims
	held   bool              // it is claimed
	put    func()            // called in place of taking a result
	result *wire.TaskResult
	pushes int
	deltas int
	digest [sha256.Size]byte
	roles  int
}

func newFar(roleARN, externalID string) *far {
	return &far{
		token: rand.Text(),
		account: wire.WorkerAccount{
			ID: member, Name: "prod", Partition: "aws", RoleARN: roleARN, ExternalID: externalID,
		},
	}
}

func (f *far) faults() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wrong
}

func (f *far) accepted() (pushes, deltas int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.pushes, f.deltas
}

// A stream is a body, and notes whether whoever sent it went away in the middle: a worker
// that is killed, or told to stop, breaks off what it pushes, which is no fault of it.
type stream struct {
	io.Reader
	broken bool
}

func (s *stream) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.broken = s.broken || err != nil && err != io.EOF
	return n, err
}

// ServeHTTP answers as the bridge does.
func (f *far) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	refuse := func(status int, format string, args ...any) {
		message := fmt.Sprintf(format, args...)
		f.wrong = append(f.wrong, r.Method+" "+r.URL.Path+": "+message)
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(wire.Error{Code: "invalid_argument", Message: message})
	}
	if bearer := r.Header.Get("Authorization"); bearer != "Bearer "+f.token {
		if strings.Count(bearer, ".") == 2 { // a script's, on purpose
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		refuse(http.StatusUnauthorized, "the token is another")
		return
	}
	own := "/api/v1/upstream/accounts/" + member
	body := &stream{Reader: r.Body}
	switch r.Method + " " + r.URL.Path {
	case "GET /api/v1/upstream/tasks":
		if f.task != nil && !f.held && f.result == nil {
			json.NewEncoder(w).Encode(wire.Tasks{Version: "one", Tasks: []wire.Task{f.task.Task}})
			return
		}
		f.mu.Unlock()
		select {
		case <-r.Context().Done():
		case <-time.After(time.Second):
		}
		f.mu.Lock()
		json.NewEncoder(w).Encode(wire.Tasks{Version: "none", Tasks: []wire.Task{}})
	case "POST /api/v1/upstream/tasks/task_1/claim":
		f.held = true
		f.task.Attempt++
		json.NewEncoder(w).Encode(f.task)
	case "POST /api/v1/upstream/tasks/task_1/result":
		var in wire.TaskResult
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Attempt != f.task.Attempt {
			refuse(http.StatusBadRequest, "a result of attempt %d of %d: %v", in.Attempt, f.task.Attempt, err)
			return
		}
		if f.put != nil {
			f.put()
			return
		}
		f.result = &in
		json.NewEncoder(w).Encode(wire.TaskDone{})
	case "GET /api/v1/upstream/accounts":
		version := fmt.Sprint("v", f.pushes)
		if r.URL.Query().Get("version") == version {
			f.mu.Unlock()
			select {
			case <-r.Context().Done():
			case <-time.After(time.Second):
			}
			f.mu.Lock()
		}
		json.NewEncoder(w).Encode(wire.WorkerAccounts{Version: version, Accounts: []wire.WorkerAccount{f.account}})
	case "POST " + own + "/syncs":
		var in wire.OpenSync
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Worker == "" {
			refuse(http.StatusBadRequest, "no worker's name")
			return
		}
		f.account.Generation++
		json.NewEncoder(w).Encode(wire.Sync{Generation: f.account.Generation, Until: wire.Time{Time: time.Now().Add(time.Minute)}})
	case "PUT " + own + "/inventory":
		z, err := gzip.NewReader(body)
		if body.broken {
			return
		}
		if err != nil {
			refuse(http.StatusBadRequest, "not gzip: %v", err)
			return
		}
		text, err := io.ReadAll(z)
		if body.broken {
			return
		}
		if err != nil {
			refuse(http.StatusBadRequest, "broken off: %v", err)
			return
		}
		roles := 0
		inv, err := wire.ReadInventory(bytes.NewReader(text), func(serval.Role) error { roles++; return nil })
		if err != nil || inv.Generation != f.account.Generation || inv.AccountID != member {
			refuse(http.StatusBadRequest, "inventory of %s, generation %d: %v", inv.AccountID, inv.Generation, err)
			return
		}
		repeated := f.pushes > 0 && f.digest == sha256.Sum256(text)
		if !repeated {
			f.pushes++
			f.digest, f.roles = sha256.Sum256(text), roles
			f.account.LastSyncAt = wire.Time{Time: inv.StartedAt}
		}
		json.NewEncoder(w).Encode(wire.Push{Generation: inv.Generation, Repeated: repeated, Added: roles})
	case "PUT " + own + "/delta":
		z, err := gzip.NewReader(body)
		if body.broken {
			return
		}
		if err != nil {
			refuse(http.StatusBadRequest, "not gzip: %v", err)
			return
		}
		d, err := wire.ReadDelta(z, func(serval.Role) error { return nil })
		if body.broken {
			return
		}
		if err != nil || d.Generation != f.account.Generation || d.AccountID != member {
			refuse(http.StatusBadRequest, "delta of %s, generation %d: %v", d.AccountID, d.Generation, err)
			return
		}
		f.deltas++
		json.NewEncoder(w).Encode(wire.Push{Generation: d.Generation})
	default:
		refuse(http.StatusNotFound, "no such page")
	}
}
