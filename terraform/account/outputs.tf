output "ingestion_role_arn" {
  description = "ARN of the ingestion role: role_arn of the account, at the bridge."
  value       = aws_iam_role.ingestion.arn
}

output "oidc_provider_arn" {
  description = "ARN of the IAM OIDC provider: oidc_provider_arn of the module role; null where none is made here."
  value       = one(aws_iam_openid_connect_provider.people[*].arn)
}

output "workflow_role_arn" {
  description = "ARN of the workflow role: workflow_role_arn of the account, at the bridge; null where none is made."
  value       = one(aws_iam_role.workflow[*].arn)
}
