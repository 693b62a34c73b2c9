package insight

import (
	"math/bits"
	"slices"
	"strings"
)

// A Kind is what a mark says of a role.
type Kind string

// The kinds of marks, the gravest first.
const (
	Administrator Kind = "administrator"        // allowed everything, or all but a little that it can give itself
	Escalation    Kind = "privilege_escalation" // can come by more than it is allowed
	Credentials   Kind = "credentials_exposure" // can come by credentials of others
	Exposure      Kind = "resource_exposure"    // can let others at resources
	Data          Kind = "data_access"          // can read what is in databases, buckets, queues
)

// Kinds are all of them, in their order.
var Kinds = []Kind{Administrator, Escalation, Credentials, Exposure, Data}

// Words names the kind for people.
func (k Kind) Words() string {
	switch k {
	case Administrator:
		return "Administrator"
	case Escalation:
		return "Privilege escalation"
	case Credentials:
		return "Credentials exposure"
	case Exposure:
		return "Resource exposure"
	case Data:
		return "Data access"
	}
	return string(k)
}

// A Mark is something dangerous that a role can do, and the statement that
// causes it.
type Mark struct {
	Kind      Kind
	Path      string // of a privilege escalation: its name in the published list
	Title     string // what can be done, to be read after "can"
	Reference string // where that is described; empty for none
	Statement Statement
	Actions   []string // at most maxNamed of them
	More      int      // actions beyond those
	Resources []string // as the statement has them, at most maxNamed

	Everywhere  bool // on every resource
	Conditional bool // under conditions that whoever holds the role may meet
}

// maxNamed is how many actions or resources a mark names.
const maxNamed = 12

// What gives credentials away: the list of cloudsplaining ("Credentials
// exposure"), with what AWS has added since.
var credentialActions = strings.Fields(`
	chime:CreateApiKey codeartifact:GetAuthorizationToken codepipeline:PollForJobs cognito-identity:GetCredentialsForIdentity
	cognito-identity:GetOpenIdToken cognito-identity:GetOpenIdTokenForDeveloperIdentity connect:GetFederationToken
	ec2:GetPasswordData ecr:GetAuthorizationToken ecr-public:GetAuthorizationToken elasticache:Connect gamelift:GetComputeAuthToken
	gamelift:RequestUploadCredentials iam:CreateAccessKey iam:CreateLoginProfile iam:CreateServiceSpecificCredential
	iam:ResetServiceSpecificCredential iam:UpdateAccessKey iam:UpdateLoginProfile lightsail:DownloadDefaultKeyPair
	lightsail:GetBucketAccessKeys lightsail:GetInstanceAccessDetails lightsail:GetRelationalDatabaseMasterUserPassword
	memorydb:Connect rds-db:connect redshift:GetClusterCredentials redshift:GetClusterCredentialsWithIAM
	redshift-serverless:GetCredentials secretsmanager:BatchGetSecretValue secretsmanager:GetSecretValue
	ssm:GetParameter ssm:GetParameters ssm:GetParametersByPath ssm:GetParameterHistory
	sts:AssumeRole sts:AssumeRoot sts:AssumeRoleWithSAML sts:AssumeRoleWithWebIdentity sts:GetFederationToken sts:GetSessionToken
	signin:CreateOAuth2Token eks:AccessKubernetesApi
`)

// What hands out contents.
var dataActions = strings.Fields(`
	athena:GetQueryResults backup:GetRecoveryPointRestoreMetadata cassandra:Select cloudtrail:GetQueryResults cloudtrail:LookupEvents
	codecommit:GetBlob codecommit:GetFile codecommit:GitPull dax:BatchGetItem dax:GetItem dax:Query dax:Scan
	dsql:DbConnect dsql:DbConnectAdmin dynamodb:BatchGetItem dynamodb:ExportTableToPointInTime dynamodb:GetItem dynamodb:GetRecords
	dynamodb:PartiQLSelect dynamodb:Query dynamodb:Scan ebs:GetSnapshotBlock ecr:BatchGetImage ecr:GetDownloadUrlForLayer
	elasticfilesystem:ClientMount es:ESHttpGet es:ESHttpPost glacier:GetJobOutput kinesis:GetRecords kinesisvideo:GetMedia
	lambda:GetFunction logs:FilterLogEvents logs:GetLogEvents logs:GetQueryResults
	neptune-db:ReadDataViaQuery qldb:PartiQLSelect rds-data:BatchExecuteStatement rds-data:ExecuteStatement
	rds:DownloadCompleteDBLogFile redshift-data:ExecuteStatement redshift-data:GetStatementResult s3:GetObject s3:GetObjectVersion
	s3express:CreateSession s3-object-lambda:GetObject s3tables:GetTableData sdb:Select sqs:ReceiveMessage
	timestream:Select aoss:APIAccessAll
`)

// Services whose permissions management is about identities and not about
// resources: what it can do to a role's powers is on the list of paths.
var identityServices = map[string]bool{"iam": true, "sts": true, "sso": true, "sso-directory": true, "identitystore": true, "organizations": true, "rolesanywhere": true}

// A dangers is the actions of each kind of mark.
type dangers struct{ credentials, exposure, data *board }

func (r *Reference) findDangers() dangers {
	named := func(actions []string) *board {
		b := &board{make([]uint64, r.size())}
		for _, name := range actions {
			if i, ok := r.find(name); ok {
				b.words[i/64] |= 1 << (i % 64)
			}
		}
		return b
	}
	d := dangers{credentials: named(credentialActions), data: named(dataActions), exposure: named(nil)}
	for i, a := range r.actions {
		// A few that only show permissions are sorted with those that manage them.
		shows := strings.HasPrefix(a.lower, "describe") || strings.HasPrefix(a.lower, "get") || strings.HasPrefix(a.lower, "list")
		if Levels[a.level] == Permissions && !shows && !identityServices[r.services[a.service].prefix] {
			d.exposure.words[i/64] |= 1 << (i % 64)
		}
	}
	return d
}

// of returns the actions of a kind, and what can be done with them.
func (d dangers) of(k Kind) (*board, string) {
	switch k {
	case Credentials:
		return d.credentials, "get credentials"
	case Exposure:
		return d.exposure, "change who may use resources"
	}
	return d.data, "read data"
}

// any reports whether the powers have an action of the board.
func (p *Powers) any(b *board) bool {
	for w, word := range b.words {
		if p.some[w]&word != 0 {
			return true
		}
	}
	return false
}

// Marks returns the marks of the powers, the gravest kind first. Of an
// administrator no ways to become one are named.
func (p *Powers) Marks() []Mark {
	p.weigh()
	marks := []Mark{}
	if m, is := p.administrator(); is {
		marks = append(marks, m)
	} else {
		marks = append(marks, p.escalations(len(paths))...)
	}
	for _, kind := range []Kind{Credentials, Exposure, Data} {
		marks = append(marks, p.dangerous(kind)...)
	}
	return marks
}

// maxMarks is how many marks of a kind are told apart; what other statements allow
// is counted with the last.
const maxMarks = 20

// dangerous returns a mark for each statement that allows actions of a kind, the
// first of them. Where the budget is gone the rest is counted and not looked at.
func (p *Powers) dangerous(kind Kind) (marks []Mark) {
	b, title := p.ref.dangers.of(kind)
	at := map[*statement]int{}
	for w, word := range b.words {
		for word &= p.some[w]; word != 0; word &= word - 1 {
			i := w*64 + bits.TrailingZeros64(word)
			if p.steps < 0 && len(marks) > 0 {
				marks[len(marks)-1].More++
				continue
			}
			for _, g := range p.causes(i) {
				n, seen := at[g.statement]
				if !seen && len(marks) == maxMarks {
					marks[maxMarks-1].More++
					break
				}
				if !seen {
					n = len(marks)
					at[g.statement] = n
					marks = append(marks, Mark{Kind: kind, Title: title, Statement: g.Statement, Resources: g.written(),
						Everywhere: true, Conditional: g.conditional})
				}
				m := &marks[n]
				m.Everywhere = m.Everywhere && p.everywhere(i)
				if len(m.Actions) < maxNamed {
					m.Actions = append(m.Actions, p.ref.actionName(i))
				} else {
					m.More++
				}
			}
		}
	}
	// What is allowed on everything comes before what is allowed on something.
	slices.SortStableFunc(marks, func(x, y Mark) int {
		switch {
		case x.Everywhere == y.Everywhere:
			return 0
		case x.Everywhere:
			return -1
		}
		return 1
	})
	return marks
}

// crown are the actions that give whoever has them on any role the rest.
var crown = []string{"iam:AttachRolePolicy", "iam:PutRolePolicy", "iam:CreateRole", "iam:PassRole"}

// most is how much of all actions an administrator is allowed, in percent.
const most = 90

// administrator reports whether the powers are an administrator's: nearly every
// action on every resource, whatever the circumstances, and with them what would
// give the rest.
func (p *Powers) administrator() (Mark, bool) {
	total := (&board{p.some}).total()
	if total*100 < most*len(p.ref.actions) {
		return Mark{}, false
	}
	m := Mark{Kind: Administrator, Title: "do anything in the account", Actions: []string{"*"}, Resources: []string{"*"}, Everywhere: true}
	for _, i := range p.ref.crown {
		g, _ := p.choose(p.own, p.causes(i), need{on: somebody}, i, nil)
		if g == nil {
			return Mark{}, false
		}
		if p.bounded {
			if other, _ := p.choose(p.limit, p.ref.grants(p.limit, i, &p.steps), need{on: somebody}, i, nil); other == nil {
				return Mark{}, false
			}
		}
		m.Statement = g.Statement
		m.Everywhere = m.Everywhere && p.everywhere(i)
		m.Conditional = m.Conditional || g.conditional
	}
	if total < len(p.ref.actions) {
		m.Title = "do nearly anything in the account, and give itself the rest"
	}
	return m, true
}
