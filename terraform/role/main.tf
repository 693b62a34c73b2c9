# A role that people may ask for: it trusts the ID tokens that the bridge's client gets, and carries the tag serval.

locals {
  issuer = split(":oidc-provider/", var.oidc_provider_arn)[1]

  from = merge(
    length(var.egress_cidrs) == 0 ? {} : { IpAddress = { "aws:SourceIp" = var.egress_cidrs } },
  )
  equals = merge(
    { "${local.issuer}:aud" = var.client_id },
    var.vpc_endpoint_id == null ? {} : { "aws:SourceVpce" = var.vpc_endpoint_id },
  )
}

resource "aws_iam_role" "this" {
  name                 = var.name
  path                 = var.path
  description          = var.description
  max_session_duration = var.max_session_duration
  permissions_boundary = var.permissions_boundary
  tags                 = merge(var.tags, var.serval == null ? {} : { serval = var.serval })

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Federated = var.oidc_provider_arn }
      Action    = "sts:AssumeRoleWithWebIdentity"
      Condition = merge({ StringEquals = local.equals }, local.from)
    }]
  })

  lifecycle {
    precondition {
      condition     = length(var.egress_cidrs) == 0 || var.vpc_endpoint_id == null
      error_message = "egress_cidrs or vpc_endpoint_id: a call that comes through a VPC endpoint has no source address."
    }
  }
}

resource "aws_iam_role_policy" "this" {
  for_each = var.inline_policies

  name   = each.key
  role   = aws_iam_role.this.name
  policy = each.value
}

resource "aws_iam_role_policy_attachment" "this" {
  for_each = toset(var.policy_arns)

  role       = aws_iam_role.this.name
  policy_arn = each.value
}
