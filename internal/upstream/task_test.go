package upstream_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// answering returns a client of an upstream that answers so.
func answering(t *testing.T, f http.HandlerFunc) *upstream.Client {
	t.Helper()
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	c, err := upstream.New(upstream.Config{BaseURL: server.URL + "/base"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func TestTasks(t *testing.T) {
	var asked []string
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		var body any
		_ = json.NewDecoder(r.Body).Decode(&body)
		text, _ := json.Marshal(body)
		asked = append(asked, fmt.Sprintf("%s %s %s", r.Method, r.URL, text))
		switch r.URL.Path {
		case "/base/api/v1/upstream/tasks":
			json.NewEncoder(w).Encode(wire.Tasks{Version: "v2", Tasks: []wire.Task{{ID: "task_1", Kind: serval.TaskCheck, AccountID: account}}})
		case "/base/api/v1/upstream/tasks/task_1/claim":
			json.NewEncoder(w).Encode(wire.ClaimedTask{Task: wire.Task{ID: "task_1", Kind: serval.TaskCheck, AccountID: account}, RunID: "run_1", Attempt: 2})
		case "/base/api/v1/upstream/tasks/task_1/result":
			json.NewEncoder(w).Encode(wire.TaskDone{Repeated: true})
		}
	})
	list, err := c.Tasks(t.Context(), "v 1", 30*time.Second)
	if err != nil || list.Version != "v2" || len(list.Tasks) != 1 || list.Tasks[0].ID != "task_1" {
		t.Errorf("tasks %+v (%v)", list, err)
	}
	claimed, err := c.ClaimTask(t.Context(), "task_1", "pod")
	if err != nil || claimed.Attempt != 2 || claimed.RunID != "run_1" {
		t.Errorf("claimed %+v (%v)", claimed, err)
	}
	done, err := c.FinishTask(t.Context(), "task_1", "pod", 2, serval.RunResult{Error: "no"})
	if err != nil || !done.Repeated {
		t.Errorf("finished %+v (%v)", done, err)
	}
	want := []string{
		"GET /base/api/v1/upstream/tasks?version=v+1&wait=30 null",
		`POST /base/api/v1/upstream/tasks/task_1/claim {"worker":"pod"}`,
		`POST /base/api/v1/upstream/tasks/task_1/result {"attempt":2,"result":{"error":"no"},"worker":"pod"}`,
	}
	if diff := cmp.Diff(want, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
}

func TestTasksAreRefused(t *testing.T) {
	c := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusConflict)
		json.NewEncoder(w).Encode(wire.Error{Code: "conflict", Message: "Another worker has this task.", Detail: map[string]string{"until": "x"}})
	})
	if _, err := c.ClaimTask(t.Context(), "task_1", "pod"); !serval.IsRefusal(err, serval.Conflict) {
		t.Errorf("claiming: %v, want a conflict", err)
	}
	if _, err := c.FinishTask(t.Context(), "task_1", "pod", 1, serval.RunResult{}); !serval.IsRefusal(err, serval.Conflict) {
		t.Errorf("finishing: %v, want a conflict", err)
	}
	// A claim that is none: of another task, or without an attempt.
	for _, answer := range []wire.ClaimedTask{{Task: wire.Task{ID: "task_2"}, Attempt: 1}, {Task: wire.Task{ID: "task_1"}}} {
		c := answering(t, func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(answer) })
		if _, err := c.ClaimTask(t.Context(), "task_1", "pod"); err == nil {
			t.Errorf("%+v was taken for a claim of task_1", answer)
		}
	}
}
