package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Appointed is whom and what the configuration file names beside accounts and
// access policies. Each replica goes by the file that it has read.
type Appointed struct {
	Admins   serval.People
	Auditors serval.People
	Networks Networks
}

// Appoint makes a the ones that this plane goes by, with the next thing that
// anybody does. What is another than the last replica read is recorded.
func (p *Plane) Appoint(ctx context.Context, who serval.Principal, a Appointed) error {
	text, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("encoding whom the configuration names: %w", err)
	}
	sum := sha256.Sum256(text)
	digest := hex.EncodeToString(sum[:])
	err = p.act(ctx, who, serval.ConfigAppoint, "", func(tx *store.Tx, e *serval.Event) error {
		before, err := tx.Meta("appointed")
		if err != nil {
			return err
		}
		if before == digest {
			e.Action = ""
			return nil
		}
		e.Detail = map[string]string{
			"admins": a.Admins.String(), "auditors": a.Auditors.String(), "networks": strings.Join(slices.Sorted(maps.Keys(a.Networks)), ", "),
			"digest": digest, "old_digest": before,
		}
		return tx.SetMeta("appointed", digest)
	})
	if err != nil {
		return err
	}
	p.appointed.Store(&a)
	p.logins.Appoint(a.Admins, a.Auditors)
	return nil
}

// OlderFile is the cause, in the detail, of a Declare that is refused because a
// newer configuration file is in force.
const OlderFile = "older_file"

// olderFile returns why a file of the revision is not put into force: one of a
// higher revision is; nil where none is.
func olderFile(v *store.View, revision int64) (*serval.Refusal, error) {
	text, err := v.Meta("config_revision")
	if err != nil {
		return nil, err
	}
	inForce, err := strconv.ParseInt(text, 10, 64)
	if err != nil || revision == 0 || revision >= inForce {
		return nil, nil // what is no number was never in force
	}
	return &serval.Refusal{Kind: serval.FailedPrecondition, Detail: map[string]string{"cause": OlderFile}, Reason: fmt.Sprintf(
		"This replica's configuration file is of revision %d, and one of revision %d is in force. Give it the newer file; where this one is meant, take revision out of it, or raise it.",
		revision, inForce)}, nil
}

// keepRevision makes revision the one in force.
func keepRevision(tx *store.Tx, revision int64) error {
	text, err := tx.Meta("config_revision")
	now := strconv.FormatInt(revision, 10)
	if err != nil || text == now || text == "" && revision == 0 {
		return err
	}
	return tx.SetMeta("config_revision", now)
}

// NoteReload records that the configuration file with the digest was read again
// and is in force, or with faults, that it is not. What another replica has
// recorded already is not recorded twice.
func (p *Plane) NoteReload(ctx context.Context, who serval.Principal, digest string, faults []string) error {
	return p.act(ctx, who, serval.ConfigReload, p.settings.File, func(tx *store.Tx, e *serval.Event) error {
		state := digest
		e.Detail = map[string]string{"digest": digest}
		if n := len(faults); n > 0 {
			state += " refused: " + faults[0]
			e.Outcome, e.Reason = serval.OutcomeFailed, "the file cannot be used; the last good one stays in force"
			e.Detail["faults"] = fmt.Sprint(n)
			for i, text := range faults[:min(n, maxFaults)] {
				e.Detail[fmt.Sprintf("fault_%02d", i+1)] = serval.Cut(text, 500)
			}
		}
		before, err := tx.Meta("config_reload")
		if err != nil {
			return err
		}
		if before == state {
			e.Action = ""
			return nil
		}
		return tx.SetMeta("config_reload", state)
	})
}
