output "role_arn" {
  description = "ARN of the worker's role. With IRSA it is the annotation eks.amazonaws.com/role-arn of the service account."
  value       = aws_iam_role.worker.arn
}

output "trusted_account_id" {
  description = "The account that ingestion roles trust: trusted_account_id of the module account."
  value       = local.account
}
