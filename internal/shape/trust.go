package shape

import (
	"github.com/serval-bridge/serval-bridge/internal/control"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// Trust returns what is said of a trust policy for somebody.
func Trust(v control.Verdict) wire.Trust {
	t := wire.Trust{Verdict: v.Verdict, Reason: v.Reason, Statement: v.Statement, Condition: v.Condition, NotChecked: List(v.NotChecked)}
	if v.Mend != nil {
		t.Mend = &wire.Mend{JSON: v.Mend.JSON, Terraform: v.Mend.Terraform}
	}
	t.Provider = (*wire.Lack)(v.Provider)
	return t
}

// TrustFindings returns what else is to be known of a trust policy.
func TrustFindings(findings []control.Finding) []wire.TrustFinding {
	out := make([]wire.TrustFinding, len(findings))
	for i, f := range findings {
		out[i] = wire.TrustFinding{ID: f.ID, Severity: string(f.Severity), Sentence: f.Sentence, Statement: f.Statement, Mend: f.Mend}
	}
	return out
}

// Findings returns a page of roles with what is to be known about their trust.
func Findings(roles []control.RoleFindings) wire.FindingsPage {
	page := wire.FindingsPage{Roles: []wire.RoleFindings{}}
	for _, role := range roles {
		page.Roles = append(page.Roles, wire.RoleFindings{
			RoleARN: role.ARN, RoleID: role.RoleID, AccountID: role.Key.AccountID, AccountName: role.AccountName,
			Findings: TrustFindings(role.Findings), Unreadable: role.Unreadable,
		})
	}
	return page
}
