// Package history answers what roles that the store remembers can do, and what
// changed of them: it brings together the store, which keeps versions of roles
// and their documents, and the insight room, which reads them. It is asked inside
// of somebody's view of the store, who may see the role.
package history

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/insight"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// Card returns what a role with its documents can do.
func Card(r store.Role) *insight.Card {
	c := insight.AWS().Look(r.Role).Card()
	return &c
}

// maxAbilities is how many abilities one search may ask for.
const maxAbilities = 10

// Choose returns what chooses the roles that have all abilities of a list with
// commas between (see insight.ParseAbility), and that were not used for so many
// days at now; an empty list and no days choose all. What cannot be searched for
// is refused.
func Choose(list string, days int, now time.Time) (func(store.Role) bool, error) {
	aws := insight.AWS()
	var wanted []insight.Ability
	if strings.TrimSpace(list) != "" {
		for text := range strings.SplitSeq(list, ",") {
			a, err := aws.ParseAbility(text)
			if err != nil {
				return nil, err
			}
			if wanted = append(wanted, a); len(wanted) > maxAbilities {
				return nil, serval.Refuse(serval.Invalid, "At most %d abilities can be asked for at once.", maxAbilities)
			}
		}
	}
	return func(r store.Role) bool {
		for _, a := range wanted {
			if !aws.Has(insight.Index(r.Ability), a) {
				return false
			}
		}
		return isUnused(r, days, now)
	}, nil
}

// isUnused reports whether the role was not used for so many days. One of which
// AWS knows no use was not used since it was made, or not for as long as AWS
// remembers: 400 days (IAM User Guide, "Role last used").
func isUnused(r store.Role, days int, now time.Time) bool {
	if days == 0 {
		return true
	}
	since := r.CreatedAt
	if r.LastUsedAt != nil {
		since = *r.LastUsedAt
	}
	return now.Sub(since) >= time.Duration(days)*24*time.Hour
}

// Between returns what changed between two states of a role with their documents.
func Between(before, after store.Role) insight.Change {
	if before.Digest == after.Digest {
		return insight.Change{}
	}
	return insight.AWS().Compare(before.Role, after.Role)
}

// since returns what changed of a role, with its documents, since one of its
// versions; NotFound where that is not kept any more.
func since(v *store.View, role store.Role, version int64) (insight.Change, error) {
	if version == role.Version {
		return insight.Change{}, nil
	}
	was, err := v.RoleVersion(role.Key, version)
	if err != nil {
		return insight.Change{}, err
	}
	if err := v.FillDocuments(&was); err != nil {
		return insight.Change{}, err
	}
	return Between(was, role), nil
}

// Escalated refuses to use what was approved before the role could make whoever
// holds it an administrator, where the policy of then or of today wants that.
// What nobody knows suspends nothing.
func Escalated(v *store.View, r *serval.Request, role store.Role, policy serval.AccessPolicy) error {
	if !r.Terms.SuspendOnEscalation && !policy.SuspendOnEscalation || !insight.Index(role.Ability).AdministratorGrade() {
		return nil
	}
	approved, err := v.ApprovedVersion(r.ID)
	if serval.IsRefusal(err, serval.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	was := insight.Index(approved.Ability)
	if !was.IsKnown() || was.AdministratorGrade() {
		return nil
	}
	if insight.Index(role.Ability).AtMost() && !was.AtMost() {
		// What limited it then could not be read since: it gives the role nothing,
		// where it is still the same boundary. What its own policies give is looked
		// at as it is now, without.
		before, err := v.RoleVersion(role.Key, approved.Version)
		if err != nil && !serval.IsRefusal(err, serval.NotFound) {
			return err
		}
		if err == nil && before.PermissionsBoundary != nil && *before.PermissionsBoundary == *role.PermissionsBoundary {
			if err := v.FillDocuments(&before); err != nil {
				return err
			}
			before.PermissionsBoundary, before.BoundaryPolicy = nil, nil
			if insight.AWS().Look(before.Role).Index().AdministratorGrade() {
				return nil
			}
		}
	}
	return &serval.Refusal{Kind: serval.FailedPrecondition, Detail: map[string]string{"cause": "role_escalated"},
		Reason: "Since this was approved the role has come to make whoever holds it an administrator, so it has to be approved again: ask for an extension."}
}

// A Version is a state of a role that is kept.
type Version struct {
	Number  int64
	At      time.Time // when it was taken in; zero where that is not known
	Current bool
	Change  insight.Change // from the one before; empty of the first that is kept
}

// A History is a role's versions that are kept, the newest first, with what changed
// of them: from each of the newest to the next, or between the two that were asked
// for.
type History struct {
	kept    []store.Role // without documents
	changes []insight.Change
}

// Of returns the history of a role, for its Versions, or to Compare those of the
// two names. What was here before versions were kept has itself as its only
// version. However large documents are, it holds those of two versions at a time.
func Of(v *store.View, role store.Role, from, to string) (History, error) {
	kept, err := v.RoleVersions(role.Key)
	if err != nil {
		return History{}, err
	}
	if len(kept) == 0 || kept[0].Version != role.Version {
		itself := role
		itself.SeenAt = role.ChangedAt
		kept = append([]store.Role{itself}, kept...)
	}
	h := History{kept: kept}
	documents := v.Documents()
	if from != "" || to != "" {
		before, after, err := h.between(from, to)
		if err != nil {
			return h, nil // Compare says it
		}
		was, is := kept[before], kept[after]
		if err := errors.Join(documents.Fill(&was), documents.Fill(&is)); err != nil {
			return History{}, err
		}
		h.changes = []insight.Change{Between(was, is)}
		return h, nil
	}
	is := kept[0]
	if err := documents.Fill(&is); err != nil {
		return History{}, err
	}
	for _, was := range kept[1:min(len(kept), maxShown+1)] {
		if err := documents.Fill(&was); err != nil {
			return History{}, err
		}
		h.changes = append(h.changes, Between(was, is))
		is = was
	}
	return h, nil
}

// maxShown is how many versions are compared for one answer.
const maxShown = 20

// Versions returns the newest versions, each with what changed from the one
// before.
func (h History) Versions() (versions []Version) {
	for i := range h.kept[:min(len(h.kept), maxShown)] {
		version := h.version(i)
		if i < len(h.changes) {
			version.Change = h.changes[i]
		}
		versions = append(versions, version)
	}
	return versions
}

func (h History) version(i int) Version {
	return Version{Number: h.kept[i].Version, At: h.kept[i].SeenAt, Current: i == 0}
}

// A Compared is the difference between two versions of a role.
type Compared struct {
	From, To Version // without their own changes
	Change   insight.Change
}

// Compare returns what changed from one version to another, which are those that
// the history is Of. Each is a version's number, or an instant, and then the version
// that was in force; from is the one before to where it is empty, and to the newest.
func (h History) Compare(from, to string) (c Compared, err error) {
	before, after, err := h.between(from, to)
	if err != nil {
		return c, err
	}
	c.From, c.To = h.version(before), h.version(after)
	if len(h.changes) > 0 { // the one that was asked for, or the newest
		c.Change = h.changes[0]
	}
	return c, nil
}

// between returns the places of two versions.
func (h History) between(from, to string) (before, after int, err error) {
	if to != "" {
		if after, err = h.find(to); err != nil {
			return 0, 0, err
		}
	}
	before = min(after+1, len(h.kept)-1)
	if from != "" {
		before, err = h.find(from)
	}
	return before, after, err
}

// find returns the place of a version.
func (h History) find(text string) (int, error) {
	if number, err := strconv.ParseInt(text, 10, 64); err == nil {
		for i, one := range h.kept {
			if one.Version == number {
				return i, nil
			}
		}
		return 0, serval.Refuse(serval.NotFound, "Version %d of the role is not kept.", number)
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return 0, serval.Refuse(serval.Invalid, "A version is a number, or an instant in RFC 3339 such as 2026-03-01T12:00:00Z.")
	}
	for i, one := range h.kept {
		if !one.SeenAt.After(at) {
			return i, nil
		}
	}
	return 0, serval.Refuse(serval.NotFound, "No version of the role is kept from before %s.", at.UTC().Format(time.RFC3339))
}
