package web

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/edge"
	"github.com/serval-bridge/serval-bridge/internal/intake"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shape"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// worker returns the worker whose token the request bears, or nobody. Every
// upstream token is compared, each in constant time; what is none of them may be
// the token of a workload of the cluster, which has every account. The error is
// that the cluster cannot be asked.
func (s *Server) worker(r *http.Request, who serval.Principal) (serval.Principal, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	given := sha256.Sum256([]byte(token))
	found := -1
	tokens := s.c.UpstreamTokens()
	for i, t := range tokens {
		secret := t.Secret()
		want := sha256.Sum256([]byte(secret.Reveal()))
		if subtle.ConstantTimeCompare(given[:], want[:]) == 1 && !secret.Empty() {
			found = i
		}
	}
	if token == "" || !strings.EqualFold(scheme, "Bearer") {
		return who, nil
	}
	if found >= 0 {
		t := tokens[found]
		who.Kind, who.Worker = serval.KindWorker, t.Name
		who.Bound = append([]string{}, t.Accounts...) // never nil, which would be all
		return who, nil
	}
	if s.c.Workload == nil {
		return who, nil
	}
	name, err := s.c.Workload(r.Context(), who.Address, serval.NewSecret(token))
	if err != nil || name == "" {
		return who, err
	}
	who.Kind, who.Worker = serval.KindWorker, name
	return who, nil
}

// poll reads what a worker waits for: as soon as it is another version than the
// one the worker has, when its wait is over, or when this server is about to go.
func poll[T any](s *Server, r *http.Request, q url.Values, who serval.Principal,
	wait func(ctx context.Context, who serval.Principal, version string, d time.Duration) (T, string, error),
	now func(ctx context.Context, who serval.Principal) (T, string, error)) (answer T, version string, err error) {
	seconds := 0
	if text := q.Get("wait"); text != "" {
		if seconds, err = strconv.Atoi(text); err != nil || seconds < 0 {
			return answer, "", serval.Refuse(serval.Invalid, "wait is a number of seconds, at most %d.", maxWait)
		}
	}
	waiting, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.draining, cancel)()
	answer, version, err = wait(waiting, who, q.Get("version"), time.Duration(min(seconds, maxWait))*time.Second)
	if err != nil && s.draining.Err() != nil {
		return now(r.Context(), who) // cut off, which a database says in its own words
	}
	return answer, version, err
}

// workerAccounts answers GET /api/v1/upstream/accounts.
func (s *Server) workerAccounts(w http.ResponseWriter, r *http.Request, v *visit) error {
	q, err := edge.Query(r, "version", "wait", "identity")
	if err != nil {
		return err
	}
	if arn := q.Get("identity"); arn != "" {
		if err := s.c.Intake.Identify(r.Context(), v.who, arn); err != nil {
			return err
		}
	}
	accounts, version, err := poll(s, r, q, v.who, s.c.Intake.WaitAccounts, s.c.Intake.WorkerAccounts)
	if err != nil {
		return err
	}
	answer := wire.WorkerAccounts{Version: version, Accounts: []wire.WorkerAccount{}}
	for _, a := range accounts {
		one := workerAccount(a.Account)
		one.Generation, one.LastSyncAt, one.SyncRequested = a.Generation, wire.Time{Time: a.StartedAt}, !a.SyncRequestedAt.IsZero()
		answer.Accounts = append(answer.Accounts, one)
	}
	return edge.WriteJSON(w, http.StatusOK, answer)
}

// workerAccount is an account as it is declared, for its worker.
func workerAccount(a serval.Account) wire.WorkerAccount {
	return wire.WorkerAccount{
		ID: a.ID, Name: a.Name, Partition: a.Partition, RoleARN: a.RoleARN, ExternalID: a.ExternalID, Via: shape.List(a.Via),
		DefaultRegion: a.DefaultRegion, STS: a.STS, WorkflowRoleARN: a.WorkflowRoleARN,
	}
}

// openSync answers POST /api/v1/upstream/accounts/{id}/syncs.
func (s *Server) openSync(w http.ResponseWriter, r *http.Request, v *visit) error {
	var body wire.OpenSync
	if v.who.Kind == serval.KindWorker { // whoever is none hears that first
		if err := edge.Decode(r, &body); err != nil {
			return err
		}
	}
	o, err := s.c.Intake.OpenSync(r.Context(), v.who, r.PathValue("id"), body.Worker, body.Kind)
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Sync{
		Generation: o.Generation, Until: wire.Time{Time: o.Until}, LookedAt: wire.Time{Time: o.LookedAt}, Known: shape.List(o.Known),
		TakesBoundaries: true, Issuer: s.c.ProviderIssuer,
	})
}

// pushInventory answers PUT /api/v1/upstream/accounts/{id}/inventory. The body
// is read as a stream, and not before the plane wants it.
func (s *Server) pushInventory(w http.ResponseWriter, r *http.Request, v *visit) error {
	var generation int64
	pushed, err := s.c.Intake.Push(r.Context(), v.who, r.PathValue("id"), func(role func(serval.Role) error) (serval.Inventory, string, error) {
		inv, digest, err := digested(s, w, r, v, role, wire.ReadInventory)
		generation = inv.Generation
		return inv, digest, err
	})
	return answerPush(w, generation, pushed, err)
}

// pushDelta answers PUT /api/v1/upstream/accounts/{id}/delta, likewise.
func (s *Server) pushDelta(w http.ResponseWriter, r *http.Request, v *visit) error {
	var generation int64
	pushed, err := s.c.Intake.PushDelta(r.Context(), v.who, r.PathValue("id"), func(role func(serval.Role) error) (serval.Delta, string, error) {
		delta, digest, err := digested(s, w, r, v, role, wire.ReadDelta)
		generation = delta.Generation
		return delta, digest, err
	})
	return answerPush(w, generation, pushed, err)
}

// digested reads the text of a push, with a digest of it. That takes minutes, and a
// token that was taken away meanwhile has no power left.
func digested[T any](s *Server, w http.ResponseWriter, r *http.Request, v *visit, role func(serval.Role) error,
	read func(io.Reader, func(serval.Role) error) (T, error)) (T, string, error) {
	body, err := edge.Stream(w, r, maxInventory)
	if err != nil {
		var none T
		return none, "", err
	}
	sum := sha256.New()
	whole, err := read(io.TeeReader(body, sum), role)
	if err != nil {
		return whole, "", err
	}
	still, err := s.worker(r, serval.Principal{Kind: serval.KindNobody})
	if err == nil && (still.Kind != serval.KindWorker || still.Worker != v.who.Worker || !still.MayPush(r.PathValue("id"))) {
		err = serval.Refuse(serval.Unauthenticated, "This worker's token was taken away while it pushed.")
	}
	return whole, hex.EncodeToString(sum.Sum(nil)), err
}

func answerPush(w http.ResponseWriter, generation int64, pushed intake.Pushed, err error) error {
	if err != nil {
		return err
	}
	return edge.WriteJSON(w, http.StatusOK, wire.Push{
		Generation: generation, Repeated: pushed.Repeated, Added: pushed.Added, Changed: pushed.Changed,
		Removed: pushed.Removed, Held: pushed.Held, Stale: pushed.Stale,
	})
}
