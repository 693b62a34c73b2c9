variable "trusted_account_id" {
  description = "The worker's account: trusted_account_id of the module worker, and what the bridge shows as trusted account."
  type        = string

  validation {
    condition     = can(regex("^[0-9]{12}$", var.trusted_account_id))
    error_message = "An account id has 12 digits, in quotes."
  }
}

variable "external_id" {
  description = "The External ID that the bridge shows where an account is connected. The same for every account; no secret."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@:/-]+$", var.external_id)) && length(var.external_id) >= 2 && length(var.external_id) <= 1224
    error_message = "Not an External ID: copy it from the bridge's page, 64 characters."
  }
}

variable "partition" {
  description = "Partition of the account: aws, aws-cn or aws-us-gov."
  type        = string
  default     = "aws"

  validation {
    condition     = contains(["aws", "aws-cn", "aws-us-gov"], var.partition)
    error_message = "One of aws, aws-cn and aws-us-gov."
  }
}

variable "issuer" {
  description = "SERVAL_OIDC_ISSUER, for the IAM OIDC provider by which roles trust people's ID tokens; null to make none, such as where there is one already."
  type        = string
  default     = null

  validation {
    condition     = var.issuer == null || can(regex("^https://[^?#:/]+(/[^?#]*)?$", var.issuer)) && length(coalesce(var.issuer, " ")) <= 255
    error_message = "An https URL of at most 255 characters, without port and query."
  }
}

variable "client_ids" {
  description = "SERVAL_OIDC_CLIENT_ID: the audiences of the IAM OIDC provider."
  type        = list(string)
  default     = []

  validation {
    condition     = length(var.client_ids) <= 100 && alltrue([for id in var.client_ids : length(id) > 0 && length(id) <= 255])
    error_message = "At most 100 client ids of at most 255 characters."
  }
}

variable "thumbprints" {
  description = "Thumbprints of the issuer's authority, where AWS does not know it by itself."
  type        = list(string)
  default     = null

  validation {
    condition     = var.thumbprints == null || alltrue([for t in coalesce(var.thumbprints, []) : can(regex("^[0-9a-fA-F]{40}$", t))])
    error_message = "A thumbprint has 40 hexadecimal digits."
  }
}

variable "role_name" {
  description = "Name of the ingestion role."
  type        = string
  default     = "serval-ingestion"

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.role_name))
    error_message = "A role's name has 1 to 64 letters, digits and _+=,.@-."
  }
}

variable "role_path" {
  description = "Path of the ingestion role."
  type        = string
  default     = "/"

  validation {
    condition     = can(regex("^/([!-~]+/)?$", var.role_path))
    error_message = "A path begins and ends with a slash."
  }

  # What lies there the workflow role may tag, and so have be requested.
  validation {
    condition     = !startswith(var.role_path, "/serval/")
    error_message = "Below /serval/ are the roles that admins create from the bridge: choose another path."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary of the roles made here."
  type        = string
  default     = null
}

variable "allow_details" {
  description = "Allow iam:GetAccountAuthorizationDetails too: the account is then read in a fraction of the calls, with the same result."
  type        = bool
  default     = false
}

variable "read_oidc_provider" {
  description = "Allow iam:GetOpenIDConnectProvider too: people are then told before they click that the account has no OIDC provider for the issuer, or one without the client id."
  type        = bool
  default     = false
}

variable "list_accounts" {
  description = "Allow organizations:ListAccounts too, in the management account or a delegated administrator's."
  type        = bool
  default     = false
}

variable "workflow_boundary" {
  description = "Where set, a workflow role is made by which admins create roles under /serval/ from the bridge; each of those gets this permissions boundary, by its ARN."
  type        = string
  default     = null

  validation {
    condition     = var.workflow_boundary == null || can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$", var.workflow_boundary))
    error_message = "Not the ARN of a policy."
  }
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
