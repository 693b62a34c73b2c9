package awsorg

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/organizations"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The bounds of a list: AWS gives twenty accounts to a page, or fewer, and an
// organization has ten thousand at most unless AWS raises that.
const (
	mostPages    = 5000
	mostAccounts = 20_000
	mostName     = 100
)

// errEmpty is an answer that is good by its status only.
var errEmpty = errors.New("AWS answered 200 without a list of accounts")

// Accounts is "List accounts": it lists the accounts of the organization that a
// is of, and says in the check what came of it. It returns an error only where
// ctx ended.
func (c *Client) Accounts(ctx context.Context, a serval.Account, by Access) (serval.Check, error) {
	check := serval.Check{Name: serval.CheckOrganization, AccountID: a.ID}
	list, err := c.list(ctx, a.Partition, by)
	if err == nil {
		check.Passed, check.Text, check.Accounts = true, serval.TextAccountsListed(len(list)), list
		return check, nil
	}
	check.Text = serval.TextNoOrganizations
	code, message := said(err)
	f := serval.Finding{Target: a.RoleARN, Code: code,
		Text: fmt.Sprintf("%s answered %s: %s", serval.ListAccounts, code, message)}
	switch {
	case errors.Is(err, errEndless) || errors.Is(err, errEmpty):
		f.Code, f.Text = "MalformedAnswer", err.Error()+". The list is not whole, and nothing of it is used."
		f.Causes = []serval.Cause{serval.CauseIntercepted}
	case code == "AWSOrganizationsNotInUseException":
		check.Text = serval.TextNoOrganization
		f.Causes = []serval.Cause{serval.CauseNoOrganization}
		f.Text += " That is expected of an account outside an organization, and no trouble of the connection."
	case isDenied(code) && strings.Contains(message, serval.ListAccounts):
		check.Text = serval.TextNoListAccounts
		f.Causes, f.Actions = []serval.Cause{serval.CauseActionsDenied}, []string{serval.ListAccounts}
	case isDenied(code):
		f.Causes = []serval.Cause{serval.CauseNotManagement}
		f.Text += " AWS names no action that is missing: the list is only for the organization's management account and for delegated administrators. Run this on one of those."
	case code == "NoConnection" || code == "Timeout":
		f.Causes = []serval.Cause{serval.CauseEgress}
		f.Text += " The endpoint cannot be reached: allow egress to organizations." + region(a.Partition) + ".amazonaws.com on port 443."
	case code == "TooManyRequestsException" || code == "ThrottlingException":
		f.Causes = []serval.Cause{serval.CauseThrottled}
	default:
		f.Causes = []serval.Cause{serval.CauseOther}
	}
	check.Findings = []serval.Finding{f}
	return check, ctx.Err()
}

// errEndless is a list that does not end.
var errEndless = errors.New("the list of accounts did not end: its token came twice, or there were too many pages")

func (c *Client) list(ctx context.Context, partition string, by Access) ([]serval.OrganizationAccount, error) {
	client := organizations.New(organizations.Options{
		Region: region(partition), Credentials: by.Credentials, HTTPClient: by.HTTP, Retryer: retryer(),
		BaseEndpoint: endpoint(c.config.OrganizationsEndpoint),
	})
	list := []serval.OrganizationAccount{}
	known, used := map[string]bool{}, map[string]bool{"": true}
	var token *string
	for range mostPages {
		out, err := call(ctx, func(ctx context.Context) (*organizations.ListAccountsOutput, error) {
			return client.ListAccounts(ctx, &organizations.ListAccountsInput{NextToken: token})
		})
		switch {
		case err != nil:
			return nil, err
		case out.Accounts == nil:
			return nil, errEmpty
		}
		for _, a := range out.Accounts {
			id, err := serval.ParseAccountID(deref(a.Id))
			if err != nil {
				return nil, fmt.Errorf("%w: one has the id %q", errEmpty, serval.Cut(deref(a.Id), 40))
			}
			if known[id] {
				continue // it moved between pages
			}
			known[id] = true
			list = append(list, serval.OrganizationAccount{ID: id, Name: serval.Cut(deref(a.Name), mostName), Status: string(a.Status)})
		}
		if len(list) > mostAccounts {
			return nil, errEndless
		}
		next := deref(out.NextToken)
		if next == "" {
			return list, nil
		}
		if used[next] {
			return nil, errEndless
		}
		used[next], token = true, &next
	}
	return nil, errEndless
}
