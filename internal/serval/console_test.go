package serval

import (
	"net/url"
	"slices"
	"strings"
	"testing"
)

// S-81, S-16: a page of the console is on the partition's own console, whatever
// is asked for.
func TestConsolePage(t *testing.T) {
	for _, c := range []struct {
		partition string
		page      ConsolePage
		want      string // empty where it is refused
	}{
		{"aws", ConsolePage{}, "https://console.aws.amazon.com/"},
		{"aws", ConsolePage{Service: "ec2"}, "https://console.aws.amazon.com/ec2/home"},
		{"aws", ConsolePage{Service: "elastic-beanstalk", Region: "eu-central-1"}, "https://console.aws.amazon.com/elastic-beanstalk/home?region=eu-central-1"},
		{"aws", ConsolePage{Region: "us-west-2"}, "https://console.aws.amazon.com/console/home?region=us-west-2"},
		{"aws-cn", ConsolePage{}, "https://console.amazonaws.cn/"},
		{"aws-cn", ConsolePage{Service: "s3", Region: "cn-north-1"}, "https://console.amazonaws.cn/s3/home?region=cn-north-1"},
		{"aws-us-gov", ConsolePage{Service: "iam", Region: "us-gov-east-1"}, "https://console.amazonaws-us-gov.com/iam/home?region=us-gov-east-1"},

		{"aws-iso", ConsolePage{}, ""},
		{"", ConsolePage{}, ""},
		{"aws", ConsolePage{Region: "cn-north-1"}, ""},
		{"aws", ConsolePage{Region: "us-gov-west-1"}, ""},
		{"aws", ConsolePage{Region: "us-isob-east-1"}, ""},
		{"aws", ConsolePage{Region: "eusc-de-east-1"}, ""},
		{"aws-cn", ConsolePage{Region: "us-west-1"}, ""},
		{"aws", ConsolePage{Region: "eu-central-1.evil.example"}, ""},
		{"aws", ConsolePage{Region: "eu-central-1\n"}, ""},
		{"aws", ConsolePage{Region: "EU-CENTRAL-1"}, ""},
		{"aws", ConsolePage{Service: "//evil.example"}, ""},
		{"aws", ConsolePage{Service: "../x"}, ""},
		{"aws", ConsolePage{Service: "ec2/home#x"}, ""},
		{"aws", ConsolePage{Service: "ec2?x=y"}, ""},
		{"aws", ConsolePage{Service: "@evil.example"}, ""},
		{"aws", ConsolePage{Service: ".evil.example"}, ""},
		{"aws", ConsolePage{Service: "ec2-"}, ""},
		{"aws", ConsolePage{Service: strings.Repeat("a", 41)}, ""},
		{"aws", ConsolePage{Service: `\evil.example`}, ""},
	} {
		got, err := c.page.URL(c.partition)
		if got != c.want || (err == nil) == (c.want == "") || err != nil && !IsRefusal(err, Invalid, FailedPrecondition) {
			t.Errorf("%+v in %q: %q, %v, want %q", c.page, c.partition, got, err, c.want)
		}
		if err != nil {
			continue
		}
		u, err := url.Parse(got)
		if err != nil || u.Scheme != "https" || u.Host != consoles[c.partition] || u.User != nil || u.Fragment != "" {
			t.Errorf("%+v in %q leads to %q: %v", c.page, c.partition, got, err)
		}
	}
}

func FuzzConsolePage(f *testing.F) {
	f.Add("ec2", "eu-central-1", "aws")
	f.Add("//evil.example", "cn-north-1", "aws-cn")
	f.Fuzz(func(t *testing.T, service, region, partition string) {
		got, err := ConsolePage{Service: service, Region: region}.URL(partition)
		if err != nil {
			return
		}
		u, err := url.Parse(got)
		if err != nil || u.Scheme != "https" || u.Host != consoles[partition] || u.Host == "" || len(got) > 200 {
			t.Errorf("%q in %q of %q leads to %q: %v", service, region, partition, got, err)
		}
	})
}

func TestConsoleHosts(t *testing.T) {
	for partition, want := range map[string][]string{
		"aws": {"https://*.aws.amazon.com"}, "aws-cn": {"https://*.amazonaws.cn"},
		"aws-us-gov": {"https://*.amazonaws-us-gov.com"}, "aws-iso": nil,
	} {
		if got := ConsoleHosts(partition); !slices.Equal(got, want) {
			t.Errorf("hosts of %s: %q, want %q", partition, got, want)
		}
	}
}
