package serval

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
)

// An Action is what an event tells of. Its text is what the audit log shows.
type Action string

// What events tell of.
const (
	LoginStart  Action = "login.start"
	LoginCreate Action = "login.create"
	LoginRead   Action = "login.read"
	LoginList   Action = "login.list"
	LoginEnd    Action = "login.end"

	LoginRefresh Action = "login.refresh" // the identity provider was asked again

	ClientStart   Action = "client.start"   // a device asks to be let in
	ClientRead    Action = "client.read"    // somebody looks at what they typed for one
	ClientApprove Action = "client.approve" // somebody lets a client in under their name
	ClientDeny    Action = "client.deny"

	RoleRead    Action = "role.read"
	RequestRead Action = "request.read"
	SessionRead Action = "session.read"
	PersonRead  Action = "person.read"
	AccountRead Action = "account.read"

	RequestCreate      Action = "request.create"
	RequestApprove     Action = "request.approve"
	RequestApproveStep Action = "request.approve_step"
	RequestBreakGlass  Action = "request.break_glass"
	RequestDecide      Action = "request.decide" // of a decision that was refused
	RequestDeny        Action = "request.deny"
	RequestCancel      Action = "request.cancel"
	RequestShorten     Action = "request.shorten"
	RequestDone        Action = "request.done"
	RequestRevoke      Action = "request.revoke"
	RequestExpire      Action = "request.expire"
	RequestFail        Action = "request.fail"
	RequestRelink      Action = "request.relink"

	ExtensionCreate      Action = "extension.create"
	ExtensionApprove     Action = "extension.approve"
	ExtensionApproveStep Action = "extension.approve_step"
	ExtensionBreakGlass  Action = "extension.break_glass"
	ExtensionDeny        Action = "extension.deny"

	PersonRelink Action = "person.relink"

	WriteClaim Action = "write.claim" // of a write that was not done again

	NoticeRead  Action = "notice.read"
	NoticeSend  Action = "notice.send"  // what is due is delivered
	NoticeFail  Action = "notice.fail"  // somebody who had to be told was not
	NoticeRetry Action = "notice.retry" // an admin has it tried again

	SessionOpen   Action = "session.open"   // the intent: STS is about to be asked
	SessionIssue  Action = "session.issue"  // STS answered and the answer was right
	SessionFail   Action = "session.fail"   // STS refused, or its answer was wrong
	SessionDrop   Action = "session.drop"   // issued, and not handed over
	SessionClose  Action = "session.close"  // an intent without an outcome
	SessionLink   Action = "session.link"   // a one-time way to the console was made
	SessionSignIn Action = "session.signin" // a console session was opened

	AccountDeclare Action = "account.declare" // by the configuration file
	AccountRemove  Action = "account.remove"  // the file has it no more

	ConfigAppoint Action = "config.appoint" // the configuration file names people and networks
	ConfigReload  Action = "config.reload"  // it was read again

	AccountConnect    Action = "account.connect"
	AccountChange     Action = "account.change"
	AccountDisconnect Action = "account.disconnect"

	PolicyRead    Action = "policy.read"
	PolicyDeclare Action = "policy.declare" // by the configuration file, all of them
	PolicyCreate  Action = "policy.create"
	PolicyChange  Action = "policy.change"
	PolicyDelete  Action = "policy.delete"
	AccessExplain Action = "access.explain"

	UpstreamRead    Action = "upstream.read"
	WorkerIdentify  Action = "worker.identify" // a worker says who it is to AWS
	SyncRequest     Action = "sync.request"
	SyncOpen        Action = "sync.open"
	InventoryAccept Action = "inventory.accept"
	DeltaAccept     Action = "delta.accept"
	RemovalConfirm  Action = "removal.confirm"

	RosterRead Action = "roster.read" // what the bridge looks through for people's lists
	RoleChange Action = "role.change" // what a push changes of a role, by meaning

	TrustExplain Action = "trust.explain"
	FindingRead  Action = "finding.read"

	RunRead    Action = "run.read"
	RunStart   Action = "run.start"
	RunApprove Action = "run.approve"
	RunDeny    Action = "run.deny"
	RunDecide  Action = "run.decide" // of a decision that was refused
	RunExpire  Action = "run.expire"
	TaskClaim  Action = "task.claim"
	TaskFinish Action = "task.finish"
	TaskLapse  Action = "task.lapse" // nobody finished it

	StoreRestore Action = "store.restore" // the database was set back to an earlier state

	AuditRead   Action = "audit.read"
	AuditExport Action = "audit.export"
	ReportRead  Action = "report.read"

	EdgeRefuse Action = "edge.refuse" // it got no further than the edge: another site's, or malformed
)

// An Outcome is how what an event tells of came out.
type Outcome string

// How it came out.
const (
	OutcomeDone    Outcome = "done"
	OutcomeRefused Outcome = "refused"
	OutcomeFailed  Outcome = "failed"
	OutcomeStarted Outcome = "started"
	OutcomeUnknown Outcome = "unknown"
)

// An Event is one row of the audit log: who did what to what, how it came out
// and why. Detail holds further facts, never a secret.
type Event struct {
	Seq       int64             `json:"seq"` // 1, 2, 3, … without a gap
	At        time.Time         `json:"at"`
	ActorKind PrincipalKind     `json:"actor_kind"`
	ActorID   string            `json:"actor_id,omitempty"` // person id or worker name
	Actor     string            `json:"actor"`              // as Principal.Name
	Action    Action            `json:"action"`
	Target    string            `json:"target,omitempty"`
	Outcome   Outcome           `json:"outcome"`
	Reason    string            `json:"reason,omitempty"`
	RequestID string            `json:"request_id,omitempty"` // of the HTTP request
	Address   string            `json:"address,omitempty"`
	Detail    map[string]string `json:"detail,omitempty"`
}

// DetailWaited is the detail, of a decision that settles a request or an extension,
// for how many seconds it was waited for.
const DetailWaited = "waited_seconds"

// A Link is an event in the chain.
type Link struct {
	Event
	KeyID string `json:"key_id"`
	Hash  string `json:"hash"` // HMAC-SHA256 over the previous hash and the event, hex
}

// Genesis is the hash before the first row.
const Genesis = ""

// A Chain makes and checks links. Only the holder of the root secret can make
// one, so a row that was changed, taken out or put in is found; the database's
// owner, who might also be that holder, is found by the published head.
type Chain struct {
	keys map[string][]byte
	now  string // id of the key that new links are made with
}

// NewChain returns the chain keyed from the root secret. Links made under the
// older secrets can still be checked.
func NewChain(root Secret, older ...Secret) Chain {
	c := Chain{keys: make(map[string][]byte, 1+len(older))}
	for _, s := range append([]Secret{root}, older...) {
		key := s.Key("audit chain")
		sum := sha256.Sum256(key)
		id := hex.EncodeToString(sum[:4])
		c.keys[id] = key
		if c.now == "" {
			c.now = id
		}
	}
	return c
}

// Knows reports whether links made with the key can be checked.
func (c Chain) Knows(keyID string) bool {
	_, known := c.keys[keyID]
	return known
}

// Append returns the link of e after the hash prev. Text that a database would
// not keep as it is (invalid UTF-8, NUL) is replaced first.
func (c Chain) Append(prev string, e Event) Link {
	e = e.storable()
	hash, err := c.hash(c.keys[c.now], prev, e)
	if err != nil {
		panic("serval: encoding an event: " + err.Error()) // strings, a number and the present year
	}
	return Link{Event: e, KeyID: c.now, Hash: hash}
}

// Check returns an error that names l if it is not the link that follows the
// row seq with the hash prev.
func (c Chain) Check(seq int64, prev string, l Link) error {
	key, ok := c.keys[l.KeyID]
	switch {
	case l.Seq != seq+1:
		return fmt.Errorf("row %d is missing: row %d follows row %d", seq+1, l.Seq, seq)
	case !ok:
		return fmt.Errorf("row %d was made with key %q, which is not among the secrets given: add the older SERVAL_SECRET after a comma", l.Seq, Clip(l.KeyID, 16))
	}
	// An event that cannot even be encoded, as with a time beyond the year
	// 9999, is not one that Append was given.
	if hash, err := c.hash(key, prev, l.Event); err != nil || !hmac.Equal([]byte(l.Hash), []byte(hash)) {
		return fmt.Errorf("row %d does not fit the chain: it, or the row before it, was changed", l.Seq)
	}
	return nil
}

// storable returns text with what a database would not keep (invalid UTF-8,
// NUL) replaced.
func storable(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
}

// storable returns e as every store gives it back.
func (e Event) storable() Event {
	e.At = e.At.UTC().Truncate(time.Microsecond)
	e.Actor, e.ActorID, e.Target, e.Reason = storable(e.Actor), storable(e.ActorID), storable(e.Target), storable(e.Reason)
	e.RequestID, e.Address = storable(e.RequestID), storable(e.Address)
	detail := make(map[string]string, len(e.Detail))
	for k, v := range e.Detail {
		detail[storable(k)] = storable(v)
	}
	e.Detail = nil
	if len(detail) > 0 {
		e.Detail = detail
	}
	return e
}

func (c Chain) hash(key []byte, prev string, e Event) (string, error) {
	e.At = e.At.UTC()
	text, err := marshal(e)
	if err != nil {
		return "", err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(prev))
	mac.Write([]byte{'\n'})
	mac.Write(text)
	return hex.EncodeToString(mac.Sum(nil)), nil
}
