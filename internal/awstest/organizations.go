package awstest

import (
	"encoding/base64"
	"encoding/json"
	"slices"

	"github.com/serval-bridge/serval-bridge/internal/policytest"
)

// SetManagementAccount makes all accounts of the cloud one organization, which this account manages; "" is
// none.
func (c *Cloud) SetManagementAccount(id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.management = id
}

type accountJSON struct {
	ID              string `json:"Id"`
	Arn             string
	Email           string
	Name            string
	Status          string
	State           string
	JoinedMethod    string
	JoinedTimestamp float64
}

type listAccountsResult struct {
	Accounts  []accountJSON
	NextToken string `json:",omitempty"`
}

// actOrganizations plays ListAccounts:
// https://docs.aws.amazon.com/organizations/latest/APIReference/API_ListAccounts.html
func (c *Cloud) actOrganizations(req *Request, k *credential) (any, *failure) {
	c.mu.Lock()
	defer c.mu.Unlock()
	action := "organizations:" + req.Action
	if req.Action != "ListAccounts" {
		f := refuseUnknown(k, action, "*")
		return nil, fail(400, "AccessDeniedException", "%s", f.message)
	}
	if f := c.authorize(k, policytest.Question{Action: action, Resource: "*", Context: c.context(req, k)}); f != nil {
		return nil, fail(400, "AccessDeniedException", "%s", f.message)
	}
	switch c.management {
	case "":
		return nil, fail(400, "AWSOrganizationsNotInUseException", "Your account is not a member of an organization.")
	case k.account.id:
	default:
		return nil, fail(400, "AccessDeniedException", "You don't have permissions to access this resource.")
	}
	var in struct {
		MaxResults *int
		NextToken  string
	}
	if json.Unmarshal(req.body, &in) != nil {
		return nil, fail(400, "SerializationException", "The request is not a JSON object.")
	}
	limit := 20
	if in.MaxResults != nil {
		limit = *in.MaxResults
		if limit < 1 || limit > 20 {
			return nil, fail(400, "InvalidInputException", "You specified an invalid value for MaxResults.")
		}
	}
	after, err := base64.URLEncoding.DecodeString(in.NextToken)
	if err != nil {
		return nil, fail(400, "InvalidInputException", "You specified an invalid value for nextToken.")
	}
	all := sorted(c.accounts)
	from := slices.IndexFunc(all, func(a *Account) bool { return a.id > string(after) })
	if from < 0 {
		from = len(all)
	}
	to := min(len(all), from+c.page(limit))
	out := listAccountsResult{Accounts: []accountJSON{}}
	for _, a := range all[from:to] {
		out.Accounts = append(out.Accounts, accountJSON{
			ID: a.id, Name: a.name, Email: "aws+" + a.id + "@example.com", Status: "ACTIVE", State: "ACTIVE",
			Arn:          "arn:" + c.partition + ":organizations::" + c.management + ":account/o-exampleorgid/" + a.id,
			JoinedMethod: "CREATED", JoinedTimestamp: float64(a.created.UnixMilli()) / 1000,
		})
	}
	if to < len(all) {
		out.NextToken = base64.URLEncoding.EncodeToString([]byte(all[to-1].id))
	}
	return out, nil
}
