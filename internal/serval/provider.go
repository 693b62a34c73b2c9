package serval

import "strings"

// An OIDCProvider is what was learned of the IAM OIDC provider by which an account
// takes an issuer's tokens, where somebody asked for it.
type OIDCProvider struct {
	Issuer    string     `json:"issuer"`
	ARN       string     `json:"arn"`
	Status    ListStatus `json:"status"`     // ListAbsent: IAM has none under this ARN
	ClientIDs []string   `json:"client_ids"` // the audiences it takes; known of one that was read
}

// ProviderARN returns the ARN of an issuer's provider in an account.
func ProviderARN(partition, accountID, issuer string) string {
	return "arn:" + partition + ":iam::" + accountID + ":oidc-provider/" + ProviderName(issuer)
}

// ProviderName returns an issuer as providers and condition keys name it. Only a
// rehearsal on loopback has another scheme than https.
func ProviderName(issuer string) string {
	if scheme, rest, ok := strings.Cut(issuer, "://"); ok && (strings.EqualFold(scheme, "https") || strings.EqualFold(scheme, "http")) {
		return rest
	}
	return issuer
}
