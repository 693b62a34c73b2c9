package serval

import (
	"regexp"
	"strings"
)

// A RoleARN is the ARN of an IAM role, taken apart.
type RoleARN struct {
	Partition string
	AccountID string
	Path      string // begins and ends with /
	Name      string
}

// The role ARN's grammar, from the IAM API Reference: a path of up to 512
// characters from U+0021 to U+007E, a name of 1 to 64 from [\w+=,.@-].
var roleARN = regexp.MustCompile(
	`^arn:(aws|aws-cn|aws-us-gov|aws-iso(?:-[a-z])?|aws-eusc):iam::([0-9]{12}):role(/(?:[!-~]+/)*)([\w+=,.@-]+)$`)

// The longest path and name of a role (IAM API Reference, Role). With them an ARN
// stays below the 2,048 characters that AssumeRole takes.
const (
	maxRolePath = 512
	maxRoleName = 64
)

// ParseRoleARN takes an IAM role's ARN apart. Anything else is refused with
// "invalid role ARN format".
func ParseRoleARN(arn string) (RoleARN, error) {
	m := roleARN.FindStringSubmatch(arn)
	if m == nil || len(m[3]) > maxRolePath || len(m[4]) > maxRoleName {
		return RoleARN{}, Refuse(Invalid, "invalid role ARN format")
	}
	return RoleARN{Partition: m[1], AccountID: m[2], Path: m[3], Name: m[4]}, nil
}

// String returns the ARN.
func (a RoleARN) String() string {
	return "arn:" + a.Partition + ":iam::" + a.AccountID + ":role" + a.Path + a.Name
}

// plainPath is a path in which no shell finds anything to obey.
var plainPath = regexp.MustCompile(`^[\w+=,.@/-]*$`)

// Word returns how the role is named in a command that a shell may read: its ARN,
// or account/name where whoever made the role chose a path that is more than
// letters to a shell. IAM takes quotes, semicolons, dollars and backquotes there.
func (a RoleARN) Word() string {
	if plainPath.MatchString(a.Path) {
		return a.String()
	}
	return a.AccountID + "/" + a.Name
}

// Session returns the ARN of a session of the role: it has the role's name but
// not its path (STS API Reference, AssumedRoleUser).
func (a RoleARN) Session(name string) string {
	return "arn:" + a.Partition + ":sts::" + a.AccountID + ":assumed-role/" + a.Name + "/" + name
}

// A CallerARN is the ARN of whoever sts:GetCallerIdentity names: a user, a role's
// session, or an account's root.
type CallerARN struct {
	ARN       string
	Partition string
	AccountID string
}

// callerARN is the grammar of GetCallerIdentity's Arn (STS API Reference), and
// maxCaller the most that stands behind whether it is a user or a role.
const maxCaller = 600

var callerARN = regexp.MustCompile(
	`^arn:(aws|aws-cn|aws-us-gov|aws-iso(?:-[a-z])?|aws-eusc):(?:iam|sts)::([0-9]{12}):(?:root|(?:user|assumed-role|federated-user)/([!-~]+))$`)

// ParseCallerARN takes the ARN of a caller apart.
func ParseCallerARN(arn string) (CallerARN, error) {
	m := callerARN.FindStringSubmatch(arn)
	if m == nil || len(m[3]) > maxCaller {
		return CallerARN{}, Refuse(Invalid, "%q is not the ARN of a user, of a role's session or of an account.", Clip(arn, 80))
	}
	return CallerARN{ARN: arn, Partition: m[1], AccountID: m[2]}, nil
}

// ParseAccountID returns id if it is an AWS account id: twelve digits.
func ParseAccountID(id string) (string, error) {
	if len(id) != 12 || strings.Trim(id, "0123456789") != "" {
		return "", Refuse(Invalid, "%q is not an AWS account id: it has twelve digits.", Clip(id, 40))
	}
	return id, nil
}
