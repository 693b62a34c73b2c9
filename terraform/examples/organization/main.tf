# An organization: the worker in the account of the cluster, and in every account of an organizational unit the ingestion role and
# the OIDC provider, by a StackSet that also reaches accounts that join later.

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

# The management account or a delegated administrator of StackSets.
provider "aws" {
  alias   = "management"
  profile = "management"
}

variable "cluster_arn" {
  description = "The EKS cluster."
  type        = string
}

variable "organization_id" {
  description = "The organization, such as o-a1b2c3d4e5."
  type        = string
}

variable "organizational_unit_ids" {
  description = "The units whose accounts are connected, such as ou-ab12-cdef3456."
  type        = list(string)
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
  organization_id     = var.organization_id
}

resource "aws_cloudformation_stack_set" "serval" {
  provider = aws.management

  name             = "serval"
  description      = "What an account has that is connected to Serval"
  permission_model = "SERVICE_MANAGED"
  capabilities     = ["CAPABILITY_NAMED_IAM"]
  template_body    = file("${path.module}/../../account/stackset.yaml")

  parameters = {
    TrustedAccountId = module.worker.trusted_account_id
    ExternalId       = var.external_id
    Issuer           = var.issuer
    ClientId         = var.client_id
  }

  auto_deployment {
    enabled                          = true
    retain_stacks_on_account_removal = false
  }
}

# IAM is of no region: one stack in each account.
resource "aws_cloudformation_stack_set_instance" "serval" {
  provider = aws.management

  stack_set_name            = aws_cloudformation_stack_set.serval.name
  stack_set_instance_region = "us-east-1"

  deployment_targets {
    organizational_unit_ids = var.organizational_unit_ids
  }
}
