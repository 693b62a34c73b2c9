package web

import (
	"net/http"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// maxResult bounds the body of a result: an organization of ten thousand accounts
// is some two million bytes.
const maxResult = 4 << 20

// startCheck answers POST /api/v1/accounts/{id}/checks: a worker will do it.
func (s *Server) startCheck(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.StartCheck
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	run, err := s.c.Runs.StartCheck(r.Context(), v.who, r.PathValue("id"), body.Check)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusAccepted, shape.Run(run))
}

// startRun answers POST /api/v1/workflows/{name}/runs: a worker will do it, at
// once or when another admin has approved.
func (s *Server) startRun(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.StartRun
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	var role *serval.NewRole
	if n := body.Role; n != nil {
		role = &serval.NewRole{Name: n.Name, Description: n.Description, MaxSessionSeconds: n.MaxSessionSeconds,
			PermissionsBoundary: n.PermissionsBoundary, Policy: n.Policy}
	}
	run, err := s.c.Runs.Start(r.Context(), v.who, serval.ParseWorkflow(r.PathValue("name")), body.AccountID, role)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusAccepted, shape.Run(run))
}

// run answers GET /api/v1/runs/{id}.
func (s *Server) run(w http.ResponseWriter, r *http.Request, v *visit) error {
	if _, err := edge.Query(r); err != nil {
		return err
	}
	run, err := s.c.Runs.Read(r.Context(), v.who, r.PathValue("id"))
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, shape.Run(run))
}

// decideRun answers POST /api/v1/runs/{id}/decisions.
func (s *Server) decideRun(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.RunDecision
	if err := edge.Decode(r, &body); err != nil {
		return err
	}
	if body.Outcome != "approve" && body.Outcome != "deny" {
		return edge.Refuse(serval.Invalid, "outcome is approve or deny.")
	}
	run, err := s.c.Runs.Decide(r.Context(), v.who, r.PathValue("id"), body.Outcome == "approve", body.Reason)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, shape.Run(run))
}

// workerTasks answers GET /api/v1/upstream/tasks.
func (s *Server) workerTasks(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "version", "wait")
	if err != nil {
		return err
	}
	tasks, version, err := poll(s, r, q, v.who, s.c.Intake.WaitTasks, s.c.Intake.Tasks)
	if err != nil {
		return err
	}
	answer := wire.Tasks{Version: version, Tasks: []wire.Task{}}
	for _, t := range tasks {
		answer.Tasks = append(answer.Tasks, wire.Task{ID: t.ID, Kind: t.Kind, AccountID: t.AccountID})
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// claimTask answers POST /api/v1/upstream/tasks/{id}/claim.
func (s *Server) claimTask(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.ClaimTask
	if v.who.Kind == serval.KindWorker { // whoever is none hears that first
		if err := edge.Decode(r, &body); err != nil {
			return err
		}
	}
	t, err := s.c.Intake.ClaimTask(r.Context(), v.who, r.PathValue("id"), body.Worker)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.ClaimedTask{
		Task: wire.Task{ID: t.ID, Kind: t.Kind, AccountID: t.AccountID}, RunID: t.RunID, Attempt: t.Attempt,
		Until: wire.Time{Time: t.Until}, Account: workerAccount(t.Account.Account), Role: t.Role,
	})
}

// finishTask answers POST /api/v1/upstream/tasks/{id}/result.
func (s *Server) finishTask(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.TaskResult
	if v.who.Kind == serval.KindWorker {
		if err := edge.Decode(r, &body); err != nil {
			return err
		}
	}
	repeated, err := s.c.Intake.FinishTask(r.Context(), v.who, r.PathValue("id"), body.Worker, body.Attempt, body.Result)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.TaskDone{Repeated: repeated})
}
