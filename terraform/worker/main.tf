# The AWS role of serval-worker, in the account of the EKS cluster, and its Pod Identity association.

locals {
  account = split(":", var.cluster_arn)[4]
  issuer  = var.irsa_oidc_provider_arn == null ? "" : split(":oidc-provider/", var.irsa_oidc_provider_arn)[1]

  # The Pod Identity agent assumes the role with session tags that say which pod asks; the cluster is among them, so that a service
  # account of the same name in another cluster of this account is not let in.
  pod_identity = {
    Effect    = "Allow"
    Principal = { Service = "pods.eks.amazonaws.com" }
    Action    = ["sts:AssumeRole", "sts:TagSession"]
    Condition = {
      StringEquals = {
        "aws:RequestTag/eks-cluster-arn"            = var.cluster_arn
        "aws:RequestTag/kubernetes-namespace"       = var.namespace
        "aws:RequestTag/kubernetes-service-account" = var.service_account
      }
    }
  }

  irsa = {
    Effect    = "Allow"
    Principal = { Federated = var.irsa_oidc_provider_arn }
    Action    = "sts:AssumeRoleWithWebIdentity"
    Condition = {
      StringEquals = {
        "${local.issuer}:aud" = "sts.amazonaws.com"
        "${local.issuer}:sub" = "system:serviceaccount:${var.namespace}:${var.service_account}"
      }
    }
  }

  trust = (var.irsa_oidc_provider_arn == null
    ? jsonencode({ Version = "2012-10-17", Statement = [local.pod_identity] })
  : jsonencode({ Version = "2012-10-17", Statement = [local.irsa] }))

  assume = {
    Effect   = "Allow"
    Action   = ["sts:AssumeRole", "sts:TagSession"]
    Resource = var.ingestion_role_arns
  }
}

resource "aws_iam_role" "worker" {
  name                 = var.role_name
  path                 = var.role_path
  description          = "serval-worker: assumes the ingestion roles, and has no other rights"
  assume_role_policy   = local.trust
  permissions_boundary = var.permissions_boundary
  tags                 = var.tags
}

resource "aws_iam_role_policy" "assume" {
  name = "assume-ingestion-roles"
  role = aws_iam_role.worker.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [merge(local.assume, var.organization_id == null ? {} : {
      Condition = { StringEquals = { "aws:ResourceOrgID" = var.organization_id } }
    })]
  })
}

resource "aws_eks_pod_identity_association" "worker" {
  count = var.irsa_oidc_provider_arn == null ? 1 : 0

  cluster_name    = split("/", var.cluster_arn)[1]
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.worker.arn
  tags            = var.tags
}
