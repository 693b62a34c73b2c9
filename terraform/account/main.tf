# What a connected account has: the ingestion role that serval-worker reads with, and the IAM OIDC provider by which roles trust
# people's ID tokens.

locals {
  principal = "arn:${var.partition}:iam::${var.trusted_account_id}:root"

  # STS judges the two actions of one call each by itself. The first asks for the External ID; the second is for the session tags
  # of EKS Pod Identity, which travel on with the worker's session.
  trust = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Principal = { AWS = local.principal }
        Action    = "sts:AssumeRole"
        Condition = { StringEquals = { "sts:ExternalId" = var.external_id } }
      },
      {
        Effect    = "Allow"
        Principal = { AWS = local.principal }
        Action    = "sts:TagSession"
      },
    ]
  })

  reading = [
    "iam:ListRoles",
    "iam:GetRole",
    "iam:ListRolePolicies",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:GetPolicy",
    "iam:GetPolicyVersion",
  ]

  allowed = concat(local.reading, var.allow_details ? ["iam:GetAccountAuthorizationDetails"] : [], var.list_accounts ? ["organizations:ListAccounts"] : [], var.read_oidc_provider ? ["iam:GetOpenIDConnectProvider"] : [])
}

resource "aws_iam_role" "ingestion" {
  name                 = var.role_name
  path                 = var.role_path
  description          = "serval-worker reads the IAM roles of this account with it"
  assume_role_policy   = local.trust
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "ingestion" {
  name = "serval-ingestion"
  role = aws_iam_role.ingestion.name

  policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = local.allowed, Resource = "*" }]
  })
}

resource "aws_iam_openid_connect_provider" "people" {
  count = var.issuer == null ? 0 : 1

  url             = var.issuer
  client_id_list  = var.client_ids
  thumbprint_list = var.thumbprints
  tags            = var.tags

  lifecycle {
    precondition {
      condition     = length(var.client_ids) > 0
      error_message = "client_ids: an OIDC provider without the bridge's client id trusts no token of it."
    }
  }
}

# A role of its own, so that the one that reads never writes.
resource "aws_iam_role" "workflow" {
  count = var.workflow_boundary == null ? 0 : 1

  name                 = "${var.role_name}-workflow"
  path                 = var.role_path
  description          = "serval-worker creates approved roles under /serval/ with it"
  assume_role_policy   = local.trust
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "workflow" {
  count = var.workflow_boundary == null ? 0 : 1

  name = "serval-workflow"
  role = aws_iam_role.workflow[0].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        # Only with the boundary, so that no role comes of it that may more.
        Effect    = "Allow"
        Action    = ["iam:CreateRole", "iam:PutRolePolicy"]
        Resource  = "arn:${var.partition}:iam::*:role/serval/*"
        Condition = { StringEquals = { "iam:PermissionsBoundary" = var.workflow_boundary } }
      },
      {
        Effect   = "Allow"
        Action   = "iam:TagRole"
        Resource = "arn:${var.partition}:iam::*:role/serval/*"
      },
    ]
  })
}
