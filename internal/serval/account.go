package serval

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// The AWS partitions a system can serve. Endpoints, regions and ARNs of
// different partitions never mix.
const (
	PartitionAWS   = "aws"
	PartitionChina = "aws-cn"
	PartitionGov   = "aws-us-gov"
)

// DefaultSTSRegion returns the region whose STS endpoint is used where none is
// set; empty for a partition whose region must be set.
func DefaultSTSRegion(partition string) string {
	switch partition {
	case PartitionAWS:
		return "us-west-1"
	case PartitionGov:
		return "us-gov-west-1"
	case PartitionChina:
		return "cn-north-1"
	default:
		return ""
	}
}

// An Account is a connected AWS account.
type Account struct {
	ID         string // twelve digits
	Name       string
	Partition  string
	RoleARN    string // of the ingestion role
	ExternalID string // always sent with AssumeRole; 2 to 1,224 characters

	Via           []Hop // roles to assume first, in order
	DefaultRegion string
	STS           STS
	// WorkflowRoleARN is the separate role under which "Create AWS IAM Role"
	// runs; empty where that workflow is not set up.
	WorkflowRoleARN string
}

// A Hop is a role assumed on the way to another.
type Hop struct {
	RoleARN    string `json:"role_arn"`
	ExternalID string `json:"external_id,omitempty"`
}

// STS says how an account's STS is reached. The zero value means AWS's own
// regional endpoint, directly.
type STS struct {
	Region   string `json:"region,omitempty"`
	Endpoint string `json:"endpoint,omitempty"` // URL; https, or http on loopback
	// Dial replaces only the TCP address (host:port), as for a load balancer
	// that forwards to STS; Host, SNI, certificate check and signature stay
	// the endpoint's.
	Dial      string `json:"dial,omitempty"`
	HTTPProxy string `json:"http_proxy,omitempty"` // URL
}

// externalID is AWS's pattern for an External ID (STS API Reference, AssumeRole).
// Its length is apart: package regexp repeats at most a thousand times.
var externalID = regexp.MustCompile(`^[\w+=,.@:/-]+$`)

// region is the shape of a region's name, which becomes part of a host name.
var region = regexp.MustCompile(`^[a-z]{2,4}(-[a-z]+)+-[0-9]{1,2}$`)

func isExternalID(id string) bool {
	return len(id) >= minExternalID && len(id) <= maxExternalID && externalID.MatchString(id)
}

// maxVia bounds the roles on the way to an account: each costs a call of STS and
// an hour at most is what the last one lasts.
const maxVia = 10

// The bounds of an External ID (STS API Reference, AssumeRole).
const (
	minExternalID = 2
	maxExternalID = 1224
)

// ExternalID derives a team's External ID: 64 characters, the same on every
// connect, and not to be computed without the key.
func ExternalID(key Secret, team string) string {
	return keyed(key, "external id", team)
}

// ExternalIDFingerprint tells whether team and key are still the ones that
// External IDs were derived from, without telling either. It is kept in the
// store: a changed one would break every trust policy.
func ExternalIDFingerprint(key Secret, team string) string {
	return keyed(key, "external id fingerprint", team)[:16]
}

func keyed(key Secret, purpose, text string) string {
	mac := hmac.New(sha256.New, key.Key(purpose))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// Faults returns all that is wrong with the account as it is declared, one
// sentence each; none means that it can be connected.
func (a Account) Faults() []string {
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	if _, err := ParseAccountID(a.ID); err != nil {
		fault("id: %s", err)
	}
	if strings.TrimSpace(a.Name) == "" {
		fault("name: give the account a name people know it by.")
	} else if utf8.RuneCountInString(a.Name) > 100 || strings.ContainsFunc(a.Name, unicode.IsControl) {
		fault("name: at most 100 characters, and no line ends or other controls.")
	}
	role := func(field, text string) {
		arn, err := ParseRoleARN(text)
		switch {
		case err != nil:
			fault("%s: %s", field, err)
		case a.Partition != "" && arn.Partition != a.Partition:
			fault("%s: the role is in partition %s, the account in %s.", field, arn.Partition, a.Partition)
		}
	}
	role("role_arn", a.RoleARN)
	if arn, err := ParseRoleARN(a.RoleARN); err == nil && arn.AccountID != a.ID {
		fault("role_arn: the role is in account %s, not in %s.", arn.AccountID, Clip(a.ID, 40))
	}
	if a.WorkflowRoleARN != "" {
		role("workflow_role_arn", a.WorkflowRoleARN)
		if arn, err := ParseRoleARN(a.WorkflowRoleARN); err == nil && arn.AccountID != a.ID {
			fault("workflow_role_arn: the role is in account %s, not in %s.", arn.AccountID, Clip(a.ID, 40))
		}
		if a.WorkflowRoleARN == a.RoleARN {
			fault("workflow_role_arn: it must be another role than the ingestion role, which never gets a write action.")
		}
	}
	if len(a.Via) > maxVia {
		fault("via: at most %d roles.", maxVia)
	}
	for i, hop := range a.Via {
		role(fmt.Sprintf("via[%d].role_arn", i), hop.RoleARN)
		if hop.ExternalID != "" && !isExternalID(hop.ExternalID) {
			fault("via[%d].external_id: 2 to 1224 characters of A-Z a-z 0-9 _ + = , . @ : / -.", i)
		}
	}
	if !isExternalID(a.ExternalID) {
		fault("external_id: 2 to 1224 characters of A-Z a-z 0-9 _ + = , . @ : / -.")
	}
	if a.DefaultRegion != "" && !region.MatchString(a.DefaultRegion) {
		fault("default_region: %q is not an AWS region.", Clip(a.DefaultRegion, 40))
	}
	if a.STS.Region != "" && !region.MatchString(a.STS.Region) {
		fault("sts.region: %q is not an AWS region.", Clip(a.STS.Region, 40))
	}
	if a.STS.Endpoint != "" {
		if err := CheckEndpoint(a.STS.Endpoint); err != nil {
			fault("sts.endpoint: %s", err)
		}
	}
	if a.STS.Dial != "" {
		if host, port, err := net.SplitHostPort(a.STS.Dial); err != nil || host == "" || port == "" {
			fault("sts.dial: not a host:port.")
		}
	}
	if a.STS.HTTPProxy != "" {
		if u, err := url.Parse(a.STS.HTTPProxy); err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
			fault("sts.http_proxy: not an http or https URL.")
		}
	}
	return faults
}

// STSRegion returns the region whose STS the account is reached by.
func (a Account) STSRegion() string {
	if a.STS.Region != "" {
		return a.STS.Region
	}
	return DefaultSTSRegion(a.Partition)
}

// CheckEndpoint refuses a service endpoint that is neither https nor http on a
// loopback address.
func CheckEndpoint(endpoint string) error {
	u, err := url.Parse(endpoint)
	switch {
	case err != nil || u.Hostname() == "" || u.User != nil:
		return Refuse(Invalid, "not a URL with a host.")
	case u.Scheme == "https":
		return nil
	case u.Scheme == "http" && IsLoopback(u.Hostname()):
		return nil
	default:
		return Refuse(Invalid, "must be https (http is allowed on a loopback address only).")
	}
}

// IsLoopback reports whether host, a name or an address, can only mean this
// machine.
func IsLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.IsLoopback()
}

// IngestionActions returns the IAM actions that reading an account needs: these
// and no others, so that what is asked of AWS, what an ingestion role is given
// and what is documented is one list. Tags come with GetRole; ListRoleTags is
// not needed (IAM API Reference).
func IngestionActions() []string {
	return []string{
		"iam:ListRoles",
		"iam:GetRole",
		"iam:ListRolePolicies",
		"iam:GetRolePolicy",
		"iam:ListAttachedRolePolicies",
		"iam:GetPolicy",
		"iam:GetPolicyVersion",
	}
}
