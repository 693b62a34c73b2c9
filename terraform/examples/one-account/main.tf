# Everything in the account of the cluster: the worker's role, the ingestion role, the OIDC provider, and a role to ask for.

terraform {
  required_version = ">= 1.7"
  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 5.79"
    }
  }
}

variable "cluster_arn" {
  description = "The EKS cluster."
  type        = string
}

variable "issuer" {
  description = "SERVAL_OIDC_ISSUER."
  type        = string
}

variable "client_id" {
  description = "SERVAL_OIDC_CLIENT_ID."
  type        = string
}

variable "external_id" {
  description = "The External ID, from the bridge."
  type        = string
}

module "worker" {
  source = "../../worker"

  cluster_arn         = var.cluster_arn
  ingestion_role_arns = ["arn:aws:iam::*:role/serval-ingestion"]
}

module "account" {
  source = "../../account"

  trusted_account_id = module.worker.trusted_account_id
  external_id        = var.external_id
  issuer             = var.issuer
  client_ids         = [var.client_id]
}

module "dev" {
  source = "../../role"

  name              = "dev-read-only"
  description       = "Look at the development resources"
  oidc_provider_arn = module.account.oidc_provider_arn
  client_id         = var.client_id
  policy_arns       = ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
}

output "worker_role_arn" {
  description = "The worker's role."
  value       = module.worker.role_arn
}

output "ingestion_role_arn" {
  description = "What the bridge's configuration names as role_arn."
  value       = module.account.ingestion_role_arn
}
