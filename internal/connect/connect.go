// Package connect holds the texts that an admin pastes into AWS to connect an
// account: the trust policy of the ingestion role and its permissions, and the
// whole role for Terraform and for CloudFormation. What is documented, what is
// shown and what the tests run against is this one text. The package is pure.
package connect

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// TrustPolicy returns the trust policy of an ingestion role: the trusted account
// may assume it with the External ID, and may pass the session tags that EKS Pod
// Identity puts on the worker's session (IAM User Guide, "Passing session tags
// in AWS STS"). The second statement has no External ID, since STS judges the
// two actions of one call each by itself and the first already asks for it.
func TrustPolicy(partition, trustedAccount, externalID string) string {
	principal := root(partition, trustedAccount)
	return fmt.Sprintf(`{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Principal": {
        "AWS": %s
      },
      "Action": "sts:AssumeRole",
      "Condition": {
        "StringEquals": {
          "sts:ExternalId": %s
        }
      }
    },
    {
      "Effect": "Allow",
      "Principal": {
        "AWS": %s
      },
      "Action": "sts:TagSession"
    }
  ]
}
`, quote(principal), quote(externalID), quote(principal))
}

// PermissionPolicy returns the permissions of an ingestion role.
func PermissionPolicy() string {
	var actions []string
	for _, a := range serval.IngestionActions() {
		actions = append(actions, "        "+quote(a))
	}
	return fmt.Sprintf(`{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Effect": "Allow",
      "Action": [
%s
      ],
      "Resource": "*"
    }
  ]
}
`, strings.Join(actions, ",\n"))
}

// root returns the principal that stands for an account.
func root(partition, account string) string {
	return fmt.Sprintf("arn:%s:iam::%s:root", partition, account)
}

// quote returns text as a JSON string.
func quote(text string) string {
	quoted, err := json.Marshal(text)
	if err != nil {
		panic("connect: a string: " + err.Error()) // every string has a JSON form
	}
	return string(quoted)
}
