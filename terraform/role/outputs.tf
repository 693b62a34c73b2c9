output "arn" {
  description = "ARN of the role, as access policies name it."
  value       = aws_iam_role.this.arn
}

output "unique_id" {
  description = "The role's id (AROA…): a role that is created again under the same name has another, and inherits no grant."
  value       = aws_iam_role.this.unique_id
}
