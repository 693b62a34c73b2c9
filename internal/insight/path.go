package insight

import (
	"slices"
	"strings"
)

// A path is a published way from what a role is allowed to more than that. It is
// there where the role is allowed all that it needs.
type path struct {
	id    string
	needs []need
	title string
	link  string // where it is described, where that is not pathfinding.cloud

	bounded bool // of roles that have a permissions boundary only
}

// A need is one action of a path, and on what it has to be allowed.
type need struct {
	action string
	on     target
	to     []string // services that a role is passed to
}

// A target is on what an action has to be allowed for a path to be there.
type target int

const (
	anything    target = iota // whatever: something of one's own making will do
	somebody                  // what nobody named: a pattern, so that what is stronger may be in it
	self                      // the role itself
	ownPolicy                 // a policy that is attached to the role, or a pattern
	ownBoundary               // the policy that is the role's permissions boundary
	theSame                   // what the path's other needs of this kind are allowed on too
)

const (
	pathfinding = "https://pathfinding.cloud/paths/"
	boundaries  = "https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html"
	rhino       = "https://rhinosecuritylabs.com/aws/aws-privilege-escalation-methods-mitigation/"
	rhinoLambda = "https://rhinosecuritylabs.com/aws/aws-privilege-escalation-methods-mitigation-part-2/"
)

func do(actions ...string) (needs []need) {
	for _, a := range actions {
		needs = append(needs, need{action: a})
	}
	return needs
}

func on(t target, actions ...string) (needs []need) {
	for _, a := range actions {
		needs = append(needs, need{action: a, on: t})
	}
	return needs
}

func pass(to string, actions ...string) []need {
	return append([]need{{action: "iam:PassRole", on: somebody, to: strings.Fields(to)}}, do(actions...)...)
}

func all(needs ...[]need) []need { return slices.Concat(needs...) }

// paths is the list of pathfinding.cloud as of September 2026 (86 paths), two
// that it had before, two of Rhino Security Labs' that it does not have, and four
// out of a permissions boundary, which bounds nothing where its role can change it
// (IAM User Guide, "Permissions boundaries for IAM entities"). A
// path over what exists already needs a pattern, or every resource, to be there:
// what a policy names one by one its owner has chosen.
var paths = []path{
	{id: "boundary-delete", title: "take its own permissions boundary away", needs: on(self, "iam:DeleteRolePermissionsBoundary"), link: boundaries, bounded: true},
	{id: "boundary-put", title: "put another permissions boundary in the place of its own", needs: on(self, "iam:PutRolePermissionsBoundary"), link: boundaries, bounded: true},
	{id: "boundary-version", title: "rewrite its own permissions boundary", needs: on(ownBoundary, "iam:CreatePolicyVersion"), link: boundaries, bounded: true},
	{id: "boundary-default", title: "bring back an older version of its own permissions boundary", needs: on(ownBoundary, "iam:SetDefaultPolicyVersion"), link: boundaries, bounded: true},
	{id: "iam-001", title: "write a new version of its own policy", needs: on(ownPolicy, "iam:CreatePolicyVersion")},
	{id: "iam-002", title: "make access keys for other users", needs: on(somebody, "iam:CreateAccessKey")},
	{id: "iam-003", title: "replace the access keys of other users", needs: on(somebody, "iam:CreateAccessKey", "iam:DeleteAccessKey")},
	{id: "iam-004", title: "give other users a console password", needs: on(somebody, "iam:CreateLoginProfile")},
	{id: "iam-005", title: "write itself an inline policy", needs: on(self, "iam:PutRolePolicy")},
	{id: "iam-006", title: "change the console password of other users", needs: on(somebody, "iam:UpdateLoginProfile")},
	{id: "iam-007", title: "write users an inline policy", needs: on(somebody, "iam:PutUserPolicy")},
	{id: "iam-008", title: "attach any policy to users", needs: on(somebody, "iam:AttachUserPolicy")},
	{id: "iam-009", title: "attach any policy to itself", needs: on(self, "iam:AttachRolePolicy")},
	{id: "iam-010", title: "attach any policy to groups", needs: on(somebody, "iam:AttachGroupPolicy")},
	{id: "iam-011", title: "write groups an inline policy", needs: on(somebody, "iam:PutGroupPolicy")},
	{id: "iam-012", title: "let itself assume any role", needs: on(somebody, "iam:UpdateAssumeRolePolicy")},
	{id: "iam-013", title: "add users to stronger groups", needs: on(somebody, "iam:AddUserToGroup")},
	{id: "iam-014", title: "strengthen a role and assume it", needs: on(theSame, "iam:AttachRolePolicy", "sts:AssumeRole")},
	{id: "iam-015", title: "strengthen a user and make it access keys", needs: on(theSame, "iam:AttachUserPolicy", "iam:CreateAccessKey")},
	{id: "iam-016", title: "rewrite the policy of a role and assume the role", needs: all(on(somebody, "iam:CreatePolicyVersion"), do("sts:AssumeRole"))},
	{id: "iam-017", title: "write a role an inline policy and assume the role", needs: on(theSame, "iam:PutRolePolicy", "sts:AssumeRole")},
	{id: "iam-018", title: "write a user an inline policy and make it access keys", needs: on(theSame, "iam:PutUserPolicy", "iam:CreateAccessKey")},
	{id: "iam-019", title: "strengthen a role and let itself assume it", needs: on(theSame, "iam:AttachRolePolicy", "iam:UpdateAssumeRolePolicy")},
	{id: "iam-020", title: "rewrite the policy of a role and let itself assume the role", needs: all(on(somebody, "iam:CreatePolicyVersion"), do("iam:UpdateAssumeRolePolicy"))},
	{id: "iam-021", title: "write a role an inline policy and let itself assume it", needs: on(theSame, "iam:PutRolePolicy", "iam:UpdateAssumeRolePolicy")},
	{id: "set-default-policy-version", title: "go back to a stronger version of its own policy", needs: on(ownPolicy, "iam:SetDefaultPolicyVersion"), link: rhino},

	{id: "sts-001", title: "assume roles that nobody named", needs: on(somebody, "sts:AssumeRole")},

	{id: "apprunner-001", title: "run code under another role in App Runner", needs: pass("tasks.apprunner.amazonaws.com apprunner.amazonaws.com", "apprunner:CreateService")},
	{id: "apprunner-002", title: "run code under the role of an App Runner service", needs: on(somebody, "apprunner:UpdateService")},
	{id: "batch-001", title: "run a Batch job under another role", needs: pass("ecs-tasks.amazonaws.com", "batch:RegisterJobDefinition", "batch:SubmitJob")},
	{id: "batch-002", title: "run commands under the role of a Batch job", needs: on(somebody, "batch:SubmitJob")},
	{id: "batch-003", title: "set up Batch and run a job under another role", needs: pass("ecs-tasks.amazonaws.com batch.amazonaws.com", "batch:CreateComputeEnvironment", "batch:CreateJobQueue", "batch:RegisterJobDefinition", "batch:SubmitJob")},
	{id: "bedrock-001", title: "run code under another role in an AgentCore interpreter", needs: pass("bedrock-agentcore.amazonaws.com", "bedrock-agentcore:CreateCodeInterpreter", "bedrock-agentcore:StartCodeInterpreterSession", "bedrock-agentcore:InvokeCodeInterpreter")},
	{id: "bedrock-002", title: "run code under the role of an AgentCore interpreter", needs: on(somebody, "bedrock-agentcore:StartCodeInterpreterSession", "bedrock-agentcore:InvokeCodeInterpreter")},
	{id: "bedrock-003", title: "run commands under another role in an AgentCore runtime", needs: pass("bedrock-agentcore.amazonaws.com", "bedrock-agentcore:CreateAgentRuntime", "bedrock-agentcore:CreateAgentRuntimeEndpoint", "bedrock-agentcore:CreateWorkloadIdentity", "bedrock-agentcore:InvokeAgentRuntimeCommand")},
	{id: "bedrock-004", title: "run commands under the role of an AgentCore runtime", needs: on(somebody, "bedrock-agentcore:InvokeAgentRuntimeCommand")},
	{id: "bedrock-005", title: "run commands under another role in an AgentCore harness", needs: pass("bedrock-agentcore.amazonaws.com", "bedrock-agentcore:CreateHarness", "bedrock-agentcore:CreateAgentRuntime", "bedrock-agentcore:CreateAgentRuntimeEndpoint", "bedrock-agentcore:CreateWorkloadIdentity", "bedrock-agentcore:GetAgentRuntime", "bedrock-agentcore:InvokeAgentRuntimeCommand")},
	{id: "bedrock-006", title: "drive an AgentCore browser under another role", needs: pass("bedrock-agentcore.amazonaws.com", "bedrock-agentcore:CreateBrowser", "bedrock-agentcore:StartBrowserSession", "bedrock-agentcore:ConnectBrowserAutomationStream")},
	{id: "bedrock-007", title: "drive an AgentCore browser under its role", needs: on(somebody, "bedrock-agentcore:StartBrowserSession", "bedrock-agentcore:ConnectBrowserAutomationStream")},
	{id: "braket-001", title: "run a Braket job under another role", needs: pass("braket.amazonaws.com", "braket:CreateJob")},
	{id: "cloudformation-001", title: "make anything through a CloudFormation stack with another role", needs: pass("cloudformation.amazonaws.com", "cloudformation:CreateStack")},
	{id: "cloudformation-002", title: "make anything through the role of a CloudFormation stack", needs: on(somebody, "cloudformation:UpdateStack")},
	{id: "cloudformation-003", title: "make anything through a CloudFormation stack set with another role", needs: pass("cloudformation.amazonaws.com", "cloudformation:CreateStackSet", "cloudformation:CreateStackInstances")},
	{id: "cloudformation-004", title: "make anything by updating a CloudFormation stack set", needs: pass("cloudformation.amazonaws.com", "cloudformation:UpdateStackSet")},
	{id: "cloudformation-005", title: "make anything through a change set of a CloudFormation stack", needs: on(somebody, "cloudformation:CreateChangeSet", "cloudformation:ExecuteChangeSet")},
	{id: "codebuild-001", title: "run a CodeBuild build under another role", needs: pass("codebuild.amazonaws.com", "codebuild:CreateProject", "codebuild:StartBuild")},
	{id: "codebuild-002", title: "run commands under the role of a CodeBuild project", needs: on(somebody, "codebuild:StartBuild")},
	{id: "codebuild-003", title: "run a batch of commands under the role of a CodeBuild project", needs: on(somebody, "codebuild:StartBuildBatch")},
	{id: "codebuild-004", title: "run a batch of CodeBuild builds under another role", needs: pass("codebuild.amazonaws.com", "codebuild:CreateProject", "codebuild:StartBuildBatch")},
	{id: "codedeploy-001", title: "run commands on instances through CodeDeploy", needs: on(somebody, "codedeploy:CreateDeployment")},
	{id: "cognitoidentity-001", title: "get another role's credentials from a Cognito identity pool", needs: pass("cognito-identity.amazonaws.com", "cognito-identity:SetIdentityPoolRoles")},
	{id: "datapipeline-001", title: "run commands under another role in Data Pipeline", needs: pass("datapipeline.amazonaws.com elasticmapreduce.amazonaws.com ec2.amazonaws.com", "datapipeline:CreatePipeline", "datapipeline:PutPipelineDefinition", "datapipeline:ActivatePipeline")},
	{id: "ec2-001", title: "start an instance with another role", needs: pass("ec2.amazonaws.com", "ec2:RunInstances")},
	{id: "ec2-002", title: "run commands on an instance by its user data", needs: on(somebody, "ec2:ModifyInstanceAttribute", "ec2:StopInstances", "ec2:StartInstances")},
	{id: "ec2-003", title: "log in to instances by Instance Connect", needs: on(somebody, "ec2-instance-connect:SendSSHPublicKey")},
	{id: "ec2-004", title: "start a spot instance with another role", needs: pass("ec2.amazonaws.com", "ec2:RequestSpotInstances")},
	{id: "ec2-005", title: "change what instances start from a launch template", needs: on(somebody, "ec2:CreateLaunchTemplateVersion", "ec2:ModifyLaunchTemplate")},
	{id: "ecs-001", title: "run a service under another role in a new ECS cluster", needs: pass("ecs-tasks.amazonaws.com", "ecs:CreateCluster", "ecs:RegisterTaskDefinition", "ecs:CreateService")},
	{id: "ecs-002", title: "run a task under another role in a new ECS cluster", needs: pass("ecs-tasks.amazonaws.com", "ecs:CreateCluster", "ecs:RegisterTaskDefinition", "ecs:RunTask")},
	{id: "ecs-003", title: "run an ECS service under another role", needs: pass("ecs-tasks.amazonaws.com", "ecs:RegisterTaskDefinition", "ecs:CreateService")},
	{id: "ecs-004", title: "run an ECS task under another role", needs: pass("ecs-tasks.amazonaws.com", "ecs:RegisterTaskDefinition", "ecs:RunTask")},
	{id: "ecs-005", title: "start an ECS task under another role", needs: pass("ecs-tasks.amazonaws.com", "ecs:RegisterTaskDefinition", "ecs:StartTask")},
	{id: "ecs-006", title: "run commands in ECS tasks", needs: on(somebody, "ecs:ExecuteCommand")},
	{id: "ecs-007", title: "start an ECS task under another role on a machine of its own", needs: pass("ecs-tasks.amazonaws.com", "ecs:RegisterContainerInstance", "ecs:StartTask")},
	{id: "ecs-008", title: "run an ECS task with another role put in", needs: pass("ecs-tasks.amazonaws.com", "ecs:RunTask")},
	{id: "ecs-009", title: "start an ECS task with another role put in", needs: pass("ecs-tasks.amazonaws.com", "ecs:StartTask")},
	{id: "emr-001", title: "run commands under another role in EMR", needs: pass("elasticmapreduce.amazonaws.com ec2.amazonaws.com", "elasticmapreduce:RunJobFlow")},
	{id: "emrserverless-001", title: "run a job under another role in EMR Serverless", needs: pass("emr-serverless.amazonaws.com", "emr-serverless:CreateApplication", "emr-serverless:StartJobRun")},
	{id: "gamelift-001", title: "run code under another role in GameLift", needs: pass("gamelift.amazonaws.com", "gamelift:CreateBuild", "gamelift:CreateFleet")},
	{id: "glue-001", title: "open a Glue endpoint with another role", needs: pass("glue.amazonaws.com", "glue:CreateDevEndpoint")},
	{id: "glue-002", title: "log in to the Glue endpoints of others", needs: on(somebody, "glue:UpdateDevEndpoint")},
	{id: "glue-003", title: "run a Glue job under another role", needs: pass("glue.amazonaws.com", "glue:CreateJob", "glue:StartJobRun")},
	{id: "glue-004", title: "have a Glue job under another role started", needs: pass("glue.amazonaws.com", "glue:CreateJob", "glue:CreateTrigger")},
	{id: "glue-005", title: "change a Glue job to another role and run it", needs: pass("glue.amazonaws.com", "glue:UpdateJob", "glue:StartJobRun")},
	{id: "glue-006", title: "change a Glue job to another role and have it started", needs: pass("glue.amazonaws.com", "glue:UpdateJob", "glue:CreateTrigger")},
	{id: "glue-007", title: "run statements under another role in a Glue session", needs: pass("glue.amazonaws.com", "glue:CreateSession", "glue:RunStatement")},
	{id: "imagebuilder-001", title: "run commands under another role in Image Builder", needs: pass("ec2.amazonaws.com", "imagebuilder:CreateComponent", "imagebuilder:CreateImageRecipe", "imagebuilder:CreateInfrastructureConfiguration", "imagebuilder:CreateImage")},
	{id: "kinesisanalytics-001", title: "run a Flink application under another role", needs: pass("kinesisanalytics.amazonaws.com", "kinesisanalytics:CreateApplication", "kinesisanalytics:StartApplication")},
	{id: "lambda-001", title: "run a function under another role", needs: pass("lambda.amazonaws.com", "lambda:CreateFunction", "lambda:InvokeFunction")},
	{id: "lambda-002", title: "have a function under another role called by events", needs: pass("lambda.amazonaws.com", "lambda:CreateFunction", "lambda:CreateEventSourceMapping")},
	{id: "lambda-003", title: "run code under the role of a function", needs: on(somebody, "lambda:UpdateFunctionCode")},
	{id: "lambda-004", title: "run code under the role of a function at once", needs: on(somebody, "lambda:UpdateFunctionCode", "lambda:InvokeFunction")},
	{id: "lambda-005", title: "run code under the role of a function from elsewhere", needs: on(somebody, "lambda:UpdateFunctionCode", "lambda:AddPermission")},
	{id: "lambda-006", title: "run a function under another role from elsewhere", needs: pass("lambda.amazonaws.com", "lambda:CreateFunction", "lambda:AddPermission")},
	{id: "lambda-layer", title: "run code under the role of a function by a layer", needs: on(somebody, "lambda:UpdateFunctionConfiguration"), link: rhinoLambda},
	{id: "omics-001", title: "run a workflow under another role in HealthOmics", needs: pass("omics.amazonaws.com", "omics:CreateWorkflow", "omics:StartRun")},
	{id: "sagemaker-001", title: "open a SageMaker notebook with another role", needs: pass("sagemaker.amazonaws.com", "sagemaker:CreateNotebookInstance")},
	{id: "sagemaker-002", title: "run a SageMaker training under another role", needs: pass("sagemaker.amazonaws.com", "sagemaker:CreateTrainingJob")},
	{id: "sagemaker-003", title: "run a SageMaker processing job under another role", needs: pass("sagemaker.amazonaws.com", "sagemaker:CreateProcessingJob")},
	{id: "sagemaker-004", title: "open the SageMaker notebooks of others", needs: on(somebody, "sagemaker:CreatePresignedNotebookInstanceUrl")},
	{id: "sagemaker-005", title: "run commands in the SageMaker notebooks of others", needs: on(somebody, "sagemaker:CreateNotebookInstanceLifecycleConfig", "sagemaker:StopNotebookInstance", "sagemaker:UpdateNotebookInstance", "sagemaker:StartNotebookInstance")},
	{id: "ssm-001", title: "log in to instances by Systems Manager", needs: on(somebody, "ssm:StartSession")},
	{id: "ssm-002", title: "run commands on instances by Systems Manager", needs: on(somebody, "ssm:SendCommand")},
	{id: "ssm-003", title: "run an automation under another role", needs: pass("ssm.amazonaws.com", "ssm:StartAutomationExecution")},
}

// escalations returns the first paths that are there, with the statement that
// allows the first of what each needs.
func (p *Powers) escalations(most int) (found []Mark) {
	p.weigh()
	asked := map[int][]grant{}
	bound := map[int][]grant{}
next:
	for i := range paths {
		at, places := &paths[i], p.ref.needs[i]
		if at.bounded && p.boundary == "" {
			continue
		}
		for _, place := range places {
			if place < 0 || !p.can(place) {
				continue next
			}
		}
		m := Mark{Kind: Escalation, Path: at.id, Title: at.title, Reference: at.link, Everywhere: true}
		if p.steps < 0 { // it cannot be ruled out
			m.Conditional = true
		}
		if m.Reference == "" {
			m.Reference = pathfinding + at.id
		}
		var common []resource
		for n, need := range at.needs {
			own, known := asked[places[n]]
			if !known {
				own = p.causes(places[n])
				asked[places[n]] = own
			}
			g, on := p.choose(p.own, own, need, places[n], common)
			if g == nil && p.steps < 0 && len(own) > 0 {
				g = &own[0]
			}
			if g == nil {
				continue next
			}
			if p.bounded {
				limit, known := bound[places[n]]
				if !known {
					limit = p.ref.grants(p.limit, places[n], &p.steps)
					bound[places[n]] = limit
				}
				if other, _ := p.choose(p.limit, limit, need, places[n], common); other == nil && p.steps >= 0 {
					continue next
				}
			}
			if need.on == theSame {
				common = on
			}
			if n == 0 {
				m.Statement, m.Resources = g.Statement, g.written()
			}
			m.Actions = append(m.Actions, need.action)
			m.Everywhere = m.Everywhere && g.isWhole()
			m.Conditional = m.Conditional || g.conditional
		}
		if found = append(found, m); len(found) == most {
			break
		}
	}
	return found
}

// choose returns the grant of an action that does for a need, and the resources
// of all that do; nil where none does.
func (p *Powers) choose(statements []statement, grants []grant, n need, place int, common []resource) (chosen *grant, on []resource) {
	for i := range grants {
		g := &grants[i]
		if chosen != nil && n.on != theSame || p.steps < 0 {
			break
		}
		if n.to == nil && g.restricted || n.to != nil && !p.passes(statements, g, place, n.to) {
			continue
		}
		fits := false
		for k := range g.on {
			x := &g.on[k]
			if !p.steps.take(1 + len(x.written)/64) {
				break
			}
			switch n.on {
			case anything:
				fits = true
			case somebody:
				fits = fits || x.isVague()
			case self:
				fits = fits || p.steps.covers(x.pattern, p.role) && !deniedOn(statements, place, p.role, &p.steps)
			case ownBoundary:
				fits = fits || !isAWSPolicy(p.boundary) && p.steps.covers(x.pattern, p.boundary) && !deniedOn(statements, place, p.boundary, &p.steps)
			case ownPolicy:
				fits = fits || x.isVague() || slices.Contains(p.attached, x.pattern)
			case theSame:
				if common == nil || slices.ContainsFunc(common, func(c resource) bool { return p.steps.meet(&c, x) }) {
					fits, on = true, append(on, *x)
				}
			}
		}
		if fits && chosen == nil {
			chosen = g
		}
	}
	return chosen, on
}

// isAWSPolicy reports whether a policy is one of AWS's own, which nobody changes.
func isAWSPolicy(arn string) bool { return strings.Contains(arn, ":iam::aws:policy/") }

// isVague reports whether a resource, as it is written, leaves open which one it
// is. A variable does not: it stands for one.
func (x *resource) isVague() bool {
	written := newResource(x.written, x.written)
	name := written.tail()
	for {
		before, after, ok := strings.Cut(name, "${")
		if strings.ContainsAny(before, "*?") {
			return true
		}
		if !ok {
			return false
		}
		_, name, _ = strings.Cut(after, "}")
	}
}

// passes reports whether a role may be passed to one of the services under the
// conditions of a grant, and of the denies beside it.
func (p *Powers) passes(statements []statement, g *grant, place int, services []string) bool {
	const key = "iam:passedtoservice"
	return slices.ContainsFunc(services, func(service string) bool {
		if !p.steps.take(1 + len(statements)/4) {
			return true
		}
		for _, c := range g.conditions {
			p.steps.take(len(c.values) / 4)
		}
		for _, c := range g.conditions {
			if c.key == key && c.named(service) == c.negated() || c.key != key && c.restricts() {
				return false
			}
		}
		for i := range statements {
			d := &statements[i]
			if d.allow || !d.conditional || !d.everywhere || !d.covers(place) {
				continue
			}
			denies := true
			for _, c := range d.conditions {
				denies = denies && (c.key == key && c.named(service) != c.negated() || c.key != key && c.unless())
			}
			if denies {
				return false
			}
		}
		return true
	})
}

// named reports whether one of the condition's values may be the service. China's
// services end on .cn, and some have the region in their name.
func (c condition) named(service string) bool {
	name := strings.TrimSuffix(service, ".amazonaws.com")
	return slices.ContainsFunc(c.values, func(v string) bool {
		v = strings.ToLower(v)
		return covers(v, service) || covers(v, service+".cn") || strings.HasPrefix(v, name+".") && strings.Contains(v, ".amazonaws.com")
	})
}
