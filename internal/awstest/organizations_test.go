package awstest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/organizations"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

func TestListAccounts(t *testing.T) {
	c, a, keys := admin(t, awstest.Options{})
	for n := range 44 {
		c.AddAccount(fmt.Sprintf("0000000000%02d", n), fmt.Sprintf("Account %d", n))
	}
	url := c.Start(t)
	list := func(k awstest.Keys) (names []string, pages int, err error) {
		p := organizations.NewListAccountsPaginator(organizationsClient(url, k), &organizations.ListAccountsInput{})
		for ; p.HasMorePages(); pages++ {
			page, err := p.NextPage(t.Context())
			if err != nil {
				return names, pages, err
			}
			for _, a := range page.Accounts {
				names = append(names, *a.Name)
			}
		}
		return names, pages, nil
	}
	_, _, err := list(keys)
	wantError(t, err, "AWSOrganizationsNotInUseException", "")
	c.SetManagementAccount(hub)
	_, _, err = list(keys)
	wantError(t, err, "AccessDeniedException", "You don't have permissions to access this resource.")
	c.SetManagementAccount(spoke)
	names, pages, err := list(keys)
	if err != nil || len(names) != 45 || pages != 3 || names[44] != "Spoke" {
		t.Errorf("%d accounts on %d pages, %v; want 45 on 3", len(names), pages, err)
	}
	_, _, err = list(a.PutUser("ann", strings.Replace(allowAll, `"Action":"*"`, `"Action":"iam:*"`, 1)))
	wantError(t, err, "AccessDeniedException", "is not authorized to perform: organizations:ListAccounts")
	c.ShortPages(10)
	if _, pages, err = list(keys); err != nil || pages != 5 {
		t.Errorf("%d short pages, %v; want 5", pages, err)
	}
	_, err = organizationsClient(url, keys).DescribeAccount(t.Context(), &organizations.DescribeAccountInput{AccountId: aws.String(spoke)})
	wantError(t, err, "AccessDeniedException", "organizations:DescribeAccount")
}
