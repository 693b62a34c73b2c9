package connect

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// DefaultRole is what the ingestion role is called where it is not made yet.
const DefaultRole = "serval-ingestion"

// A Role is an ingestion role to be made in a member account.
type Role struct {
	Partition      string
	TrustedAccount string // whose worker may assume it
	ExternalID     string

	Name string // empty: DefaultRole
	Path string // empty: /

	AccountID, AccountName string // for the reader; empty where there is none yet
}

func (r Role) name() string {
	if r.Name == "" {
		return DefaultRole
	}
	return r.Name
}

func (r Role) path() string {
	if r.Path == "" {
		return "/"
	}
	return r.Path
}

// title says in one line what the text is for. A name is quoted, and whatever
// could end the line is escaped in it.
func (r Role) title() string {
	title := "# The role by which Serval reads the IAM roles of an account."
	if r.AccountID != "" {
		title = fmt.Sprintf("# The role by which Serval reads the IAM roles of account %s, %s.", line(r.AccountID), line(r.AccountName))
	}
	return title
}

// line returns text for a comment: quoted where it is more than letters,
// digits and dashes, and always one line, also to who ends lines at U+2028.
func line(text string) string {
	if strings.Trim(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == "" && text != "" {
		return text
	}
	return strconv.QuoteToGraphic(text)
}

// Terraform returns the role for Terraform, as terraform fmt writes it. It needs
// the provider hashicorp/aws and nothing else.
func Terraform(r Role) string {
	principal := hcl(root(r.Partition, r.TrustedAccount))
	var actions []string
	for _, a := range serval.IngestionActions() {
		actions = append(actions, "        "+hcl(a)+",")
	}
	return fmt.Sprintf(`%s
resource "aws_iam_role" "serval_ingestion" {
  name = %s
  path = %s

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Principal = { AWS = %s }
        Action    = "sts:AssumeRole"
        Condition = { StringEquals = { "sts:ExternalId" = %s } }
      },
      {
        # The worker's session carries the tags of EKS Pod Identity.
        Effect    = "Allow"
        Principal = { AWS = %s }
        Action    = "sts:TagSession"
      },
    ]
  })
}

resource "aws_iam_role_policy" "serval_ingestion" {
  name = %s
  role = aws_iam_role.serval_ingestion.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = [
%s
      ]
      Resource = "*"
    }]
  })
}

output "serval_ingestion_role_arn" {
  value = aws_iam_role.serval_ingestion.arn
}
`, r.title(), hcl(r.name()), hcl(r.path()), principal, hcl(r.ExternalID), principal, hcl(DefaultRole), strings.Join(actions, "\n"))
}

// hcl returns text as a string of HCL's native syntax, in which ${ and %{ begin
// a template.
func hcl(text string) string {
	text = quoted(text)
	return strings.NewReplacer("${", "$${", "%{", "%%{").Replace(text)
}

// quoted returns text between double quotes, in the escapes that HCL and YAML
// share; what does not show is one.
func quoted(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range text {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteRune(c)
		case c == '\n':
			b.WriteString(`\n`)
		case strconv.IsGraphic(c):
			b.WriteRune(c)
		case c > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, c)
		default:
			fmt.Fprintf(&b, `\u%04x`, c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// CloudFormation returns the role as a CloudFormation template. It asks for no
// parameters and names no account of its own, so a StackSet can bring it to
// every account of an organization; it needs CAPABILITY_NAMED_IAM.
func CloudFormation(r Role) string {
	principal := quoted(root(r.Partition, r.TrustedAccount))
	var actions []string
	for _, a := range serval.IngestionActions() {
		actions = append(actions, "                  - "+quoted(a))
	}
	return fmt.Sprintf(`%s
AWSTemplateFormatVersion: "2010-09-09"
Description: The role by which Serval reads IAM roles
Resources:
  ServalIngestion:
    Type: AWS::IAM::Role
    Properties:
      RoleName: %s
      Path: %s
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          - Effect: Allow
            Principal:
              AWS: %s
            Action: "sts:AssumeRole"
            Condition:
              StringEquals:
                "sts:ExternalId": %s
          # The worker's session carries the tags of EKS Pod Identity.
          - Effect: Allow
            Principal:
              AWS: %s
            Action: "sts:TagSession"
      Policies:
        - PolicyName: %s
          PolicyDocument:
            Version: "2012-10-17"
            Statement:
              - Effect: Allow
                Action:
%s
                Resource: "*"
Outputs:
  RoleArn:
    Value: !GetAtt ServalIngestion.Arn
`, r.title(), quoted(r.name()), quoted(r.path()), principal, quoted(r.ExternalID), principal, quoted(DefaultRole), strings.Join(actions, "\n"))
}
