package awstest_test

import (
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/iam"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
)

// BenchmarkGetRole says what the cloud itself costs, so that other benchmarks can be told from it.
func BenchmarkGetRole(b *testing.B) {
	c := awstest.New(awstest.Options{})
	a := c.AddAccount(spoke, "Spoke")
	a.PutRole(awstest.Role{Name: "r", Tags: map[string]string{"serval": ""}})
	client := iamClient(c.Start(b), a.PutUser("admin", allowAll))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := client.GetRole(b.Context(), &iam.GetRoleInput{RoleName: aws.String("r")}); err != nil {
			b.Fatal(err)
		}
	}
}
