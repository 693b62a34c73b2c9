package connect

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// DenyPolicy returns the policy that cuts off the sessions when it is attached to
// their role, and nobody else's: a statement for each session name, since AWS
// tells the sessions of one name apart by when they were issued alone. It denies
// what was issued before the second after the last of them, so that a session
// that is approved and opened later works (IAM User Guide, "Revoke IAM role
// temporary security credentials" and "Disabling permissions for temporary
// security credentials"). Without sessions it is empty.
func DenyPolicy(sessions []serval.Session) string {
	before := map[string]time.Time{} // by aws:userid
	for _, s := range sessions {
		if t := s.IssuedAt().Truncate(time.Second).Add(time.Second); t.After(before[s.AssumedRoleID]) {
			before[s.AssumedRoleID] = t
		}
	}
	if len(before) == 0 {
		return ""
	}
	var ids []string
	for id := range before {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	var statements []string
	for _, id := range ids {
		statements = append(statements, fmt.Sprintf(`    {
      "Effect": "Deny",
      "Action": "*",
      "Resource": "*",
      "Condition": {
        "StringEquals": {
          "aws:userid": %s
        },
        "DateLessThan": {
          "aws:TokenIssueTime": %s
        }
      }
    }`, quote(id), quote(before[id].UTC().Format(time.RFC3339))))
	}
	return fmt.Sprintf(`{
  "Version": "2012-10-17",
  "Statement": [
%s
  ]
}
`, strings.Join(statements, ",\n"))
}
