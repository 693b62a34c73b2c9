package upstream

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Tasks returns the tasks that the worker can claim, as soon as there is another
// version of them than the one given, and after the wait at the latest.
func (c *Client) Tasks(ctx context.Context, version string, wait time.Duration) (wire.Tasks, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+callDeadline)
	defer cancel()
	var answer wire.Tasks
	err := c.call(ctx, http.MethodGet, "/tasks?"+waiting(version, wait).Encode(), nil, &answer)
	return answer, err
}

// ClaimTask takes a task for an attempt. While another worker has it, and once
// it has ended, that is refused as a conflict.
func (c *Client) ClaimTask(ctx context.Context, id, worker string) (wire.ClaimedTask, error) {
	var answer wire.ClaimedTask
	err := c.post(ctx, "/tasks/"+url.PathEscape(id)+"/claim", wire.ClaimTask{Worker: worker}, &answer)
	if err == nil && (answer.ID != id || answer.Attempt < 1) {
		return wire.ClaimedTask{}, fmt.Errorf("claiming task %s: the upstream gave attempt %d of another", id, answer.Attempt)
	}
	return answer, err
}

// FinishTask puts the result of an attempt; the same again is the same as once.
// That the attempt counts no more is refused as a conflict.
func (c *Client) FinishTask(ctx context.Context, id, worker string, attempt int, r serval.RunResult) (wire.TaskDone, error) {
	var answer wire.TaskDone
	err := c.post(ctx, "/tasks/"+url.PathEscape(id)+"/result", wire.TaskResult{Worker: worker, Attempt: attempt, Result: r}, &answer)
	return answer, err
}

func (c *Client) post(ctx context.Context, path string, body, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, callDeadline)
	defer cancel()
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("upstream: POST %s: %w", path, err)
	}
	return c.call(ctx, http.MethodPost, path, &payload{reader: bytes.NewReader(text)}, answer)
}
