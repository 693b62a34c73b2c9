# A hub: the worker assumes one role in a hub account, and from there the ingestion roles, so that these trust the hub and never the
# cluster's account. SERVAL_BASE_ROLE_ARN of the worker is the hub role.

terraform {
  required_version = ">= 1.7"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.79"
    }
  }
}

# The account of the cluster.
provider "aws" {
  profile = "cluster"
}

# The hub account.
provider "aws" {
  alias   = "hub"
  profile = "hub"
}

variable "cluster_arn" {
  description = "The EKS cluster."
  type        = string
}

variable "hub_account_id" {
  description = "The hub account."
  type        = string
}

locals {
  hub_role = "arn:aws:iam::${var.hub_account_id}:role/serval-hub"
}

module "worker" {
  source = "../../worker"

  cluster_arn         = var.cluster_arn
  ingestion_role_arns = [local.hub_role]
}

resource "aws_iam_role" "hub" {
  provider = aws.hub

  name        = "serval-hub"
  description = "serval-worker assumes the ingestion roles from here"

  # The worker's session carries the tags of EKS Pod Identity, and they travel on.
  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { AWS = module.worker.role_arn }
      Action    = ["sts:AssumeRole", "sts:TagSession"]
    }]
  })
}

resource "aws_iam_role_policy" "hub" {
  provider = aws.hub

  name = "assume-ingestion-roles"
  role = aws_iam_role.hub.name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = ["sts:AssumeRole", "sts:TagSession"]
      Resource = "arn:aws:iam::*:role/serval-ingestion"
    }]
  })
}

output "base_role_arn" {
  description = "worker.settings.SERVAL_BASE_ROLE_ARN of the chart."
  value       = aws_iam_role.hub.arn
}

output "trusted_account_id" {
  description = "trusted_account_id of the module account, in each member account."
  value       = var.hub_account_id
}
