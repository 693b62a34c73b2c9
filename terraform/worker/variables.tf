variable "cluster_arn" {
  description = "ARN of the EKS cluster that the worker runs in."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:eks:[a-z0-9-]+:[0-9]{12}:cluster/[0-9A-Za-z][A-Za-z0-9_-]{0,99}$", var.cluster_arn))
    error_message = "Not the ARN of an EKS cluster, such as arn:aws:eks:eu-central-1:111122223333:cluster/prod."
  }
}

variable "namespace" {
  description = "Namespace of the chart's release."
  type        = string
  default     = "serval"

  validation {
    condition     = can(regex("^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$", var.namespace))
    error_message = "Not the name of a namespace."
  }
}

variable "service_account" {
  description = "The worker's service account: worker.serviceAccount.name of the chart."
  type        = string
  default     = "serval-worker-sa"

  validation {
    condition     = can(regex("^[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?$", var.service_account))
    error_message = "Not the name of a service account."
  }
}

variable "ingestion_role_arns" {
  description = "ARNs of the roles that the worker may assume, with * in them. [\"*\"] is any role that trusts it; [\"arn:aws:iam::*:role/serval-ingestion\"] is the tighter variant."
  type        = list(string)
  default     = ["*"]

  validation {
    condition     = length(var.ingestion_role_arns) > 0 && alltrue([for arn in var.ingestion_role_arns : arn == "*" || can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|\\*):role/.+$", arn))])
    error_message = "Each is * or the ARN of roles, such as arn:aws:iam::*:role/serval-ingestion."
  }
}

variable "organization_id" {
  description = "Where set, the worker assumes roles of this AWS organization only, such as o-a1b2c3d4e5."
  type        = string
  default     = null

  validation {
    condition     = var.organization_id == null || can(regex("^o-[a-z0-9]{10,32}$", var.organization_id))
    error_message = "Not the id of an organization, such as o-a1b2c3d4e5."
  }
}

variable "irsa_oidc_provider_arn" {
  description = "ARN of the cluster's IAM OIDC provider, where Pod Identity does not run (Fargate): the role is then assumed by the service account's token, and there is no Pod Identity association."
  type        = string
  default     = null

  validation {
    condition     = var.irsa_oidc_provider_arn == null || can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/.+$", var.irsa_oidc_provider_arn))
    error_message = "Not the ARN of an IAM OIDC provider."
  }
}

variable "role_name" {
  description = "Name of the worker's role."
  type        = string
  default     = "serval-worker"

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.role_name))
    error_message = "A role's name has 1 to 64 letters, digits and _+=,.@-."
  }
}

variable "role_path" {
  description = "Path of the worker's role."
  type        = string
  default     = "/"

  validation {
    condition     = can(regex("^/([!-~]+/)?$", var.role_path))
    error_message = "A path begins and ends with a slash."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of the worker's role."
  type        = string
  default     = null
}

variable "tags" {
  description = "Tags of everything. The key serval is for roles that people may ask for, and refused here."
  type        = map(string)
  default     = {}

  validation {
    condition     = !contains(keys(var.tags), "serval")
    error_message = "A role with the tag serval can be requested by people: not this one."
  }
}
