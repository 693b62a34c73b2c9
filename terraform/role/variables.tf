variable "name" {
  description = "Name of the role."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9_+=,.@-]{1,64}$", var.name))
    error_message = "A role's name has 1 to 64 letters, digits and _+=,.@-."
  }
}

variable "oidc_provider_arn" {
  description = "ARN of the IAM OIDC provider of the bridge's issuer in this account: oidc_provider_arn of the module account."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-z-]*:iam::[0-9]{12}:oidc-provider/.+$", var.oidc_provider_arn))
    error_message = "Not the ARN of an IAM OIDC provider."
  }
}

variable "client_id" {
  description = "SERVAL_OIDC_CLIENT_ID. Without it in the trust policy every application of the provider could have the role."
  type        = string

  validation {
    condition     = length(var.client_id) > 0 && !can(regex("[*?]", var.client_id))
    error_message = "The bridge's client id, whole."
  }
}

variable "egress_cidrs" {
  description = "Where AWS sees the bridge's calls come from. The role is then to be had from there alone, so that nobody with an ID token goes round the bridge."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for c in var.egress_cidrs : can(cidrhost(c, 0))])
    error_message = "Networks, such as 203.0.113.7/32."
  }

  validation {
    condition     = alltrue([for c in var.egress_cidrs : !endswith(c, "/0")])
    error_message = "A network of everybody pins nothing: leave it out, or name the bridge's."
  }
}

variable "vpc_endpoint_id" {
  description = "The bridge's VPC endpoint for STS, in place of egress_cidrs: through one, AWS sees no public address."
  type        = string
  default     = null

  validation {
    condition     = var.vpc_endpoint_id == null || can(regex("^vpce-[0-9a-f]{8,17}$", var.vpc_endpoint_id))
    error_message = "Not the id of a VPC endpoint, such as vpce-0123456789abcdef0."
  }
}

variable "policy_arns" {
  description = "ARNs of managed policies."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for arn in var.policy_arns : can(regex("^arn:aws[a-z-]*:iam::([0-9]{12}|aws):policy/.+$", arn))])
    error_message = "Not the ARN of a policy."
  }
}

variable "inline_policies" {
  description = "Inline policies as JSON, by their names."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for text in values(var.inline_policies) : can(jsondecode(text))])
    error_message = "Not JSON."
  }
}

variable "max_session_duration" {
  description = "The longest session, in seconds: 3600 to 43200. Longer accesses are several sessions."
  type        = number
  default     = 3600

  validation {
    condition     = var.max_session_duration >= 3600 && var.max_session_duration <= 43200 && floor(var.max_session_duration) == var.max_session_duration
    error_message = "From 3600 to 43200 seconds."
  }
}

variable "description" {
  description = "What the role is for. People read it where they ask for it."
  type        = string
  default     = null
}

variable "path" {
  description = "Path of the role."
  type        = string
  default     = "/"

  validation {
    condition     = can(regex("^/([!-~]+/)?$", var.path))
    error_message = "A path begins and ends with a slash."
  }
}

variable "permissions_boundary" {
  description = "ARN of the permissions boundary."
  type        = string
  default     = null
}

variable "serval" {
  description = "Value of the tag serval, which makes the role one that can be requested; any will do. null leaves the tag out: nobody can ask for it then."
  type        = string
  default     = ""
}

variable "tags" {
  description = "Further tags. Access policies may go by them."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.tags) : lower(trimspace(key)) != "serval"])
    error_message = "The tag serval is set by the variable serval."
  }
}
