package serval

import (
	"net/url"
	"strings"
)

// consoles are the hosts of the AWS console by partition (IAM User Guide,
// "Enable custom identity broker access to the AWS console").
var consoles = map[string]string{
	PartitionAWS:   "console.aws.amazon.com",
	PartitionChina: "console.amazonaws.cn",
	PartitionGov:   "console.amazonaws-us-gov.com",
}

// A ConsolePage is where the AWS console opens. It is a service and a region
// and never an address, so that nobody can be sent anywhere else. The zero value
// is the console's first page.
type ConsolePage struct {
	Service string // as in the console's addresses, such as ec2 or cloudwatch
	Region  string
}

// consoleService is the form of a service's name in the console's addresses.
var consoleService = formOf(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?$`, 1, 40)

// URL returns the page's address in the console of the partition, or refuses a
// page that is not there.
func (c ConsolePage) URL(partition string) (string, error) {
	host := consoles[partition]
	switch {
	case host == "":
		return "", Refuse(FailedPrecondition, "The AWS console of partition %s is not known to Serval. Start a session with credentials instead.", Clip(partition, 40))
	case c.Service != "" && !consoleService.fits(c.Service):
		return "", Refuse(Invalid, "%q is not a service of the AWS console, such as ec2.", Clip(c.Service, 40))
	case c.Region != "" && !region.MatchString(c.Region):
		return "", Refuse(Invalid, "%q is not the name of an AWS region, such as eu-central-1.", Clip(c.Region, 40))
	case c.Region != "" && RegionPartition(c.Region) != partition:
		return "", Refuse(Invalid, "Region %s is not in the role's partition %s.", c.Region, partition)
	}
	u := url.URL{Scheme: "https", Host: host, Path: "/"}
	switch {
	case c.Service != "":
		u.Path = "/" + c.Service + "/home"
	case c.Region != "":
		u.Path = "/console/home"
	}
	if c.Region != "" {
		u.RawQuery = url.Values{"region": {c.Region}}.Encode()
	}
	return u.String(), nil
}

// ConsoleHosts returns the hosts that a sign-in to the console of a partition
// leads over, as sources of a Content-Security-Policy: a browser that holds
// forms to a policy holds the redirects after them to it too.
func ConsoleHosts(partition string) []string {
	host := consoles[partition]
	if host == "" {
		return nil
	}
	return []string{"https://*." + strings.TrimPrefix(host, "console.")}
}

// RegionPartition returns the partition that a region belongs to (AWS General
// Reference).
func RegionPartition(region string) string {
	for prefix, partition := range map[string]string{
		"cn-":      PartitionChina,
		"us-gov-":  PartitionGov,
		"us-iso-":  "aws-iso",
		"us-isob-": "aws-iso-b",
		"eu-isoe-": "aws-iso-e",
		"us-isof-": "aws-iso-f",
		"eusc-":    "aws-eusc",
	} {
		if strings.HasPrefix(region, prefix) {
			return partition
		}
	}
	return PartitionAWS
}
