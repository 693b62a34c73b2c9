# The role by which Serval reads the IAM roles of an account.
resource "aws_iam_role" "serval_ingestion" {
  name = "serval-ingestion"
  path = "/"

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::999988887777:root" }
        Action    = "sts:AssumeRole"
        Condition = { StringEquals = { "sts:ExternalId" = "external-id-of-the-team" } }
      },
      {
        # The worker's session carries the tags of EKS Pod Identity.
        Effect    = "Allow"
        Principal = { AWS = "arn:aws:iam::999988887777:root" }
        Action    = "sts:TagSession"
      },
    ]
  })
}

resource "aws_iam_role_policy" "serval_ingestion" {
  name = "serval-ingestion"
  role = aws_iam_role.serval_ingestion.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect = "Allow"
      Action = [
        "iam:ListRoles",
        "iam:GetRole",
        "iam:ListRolePolicies",
        "iam:GetRolePolicy",
        "iam:ListAttachedRolePolicies",
        "iam:GetPolicy",
        "iam:GetPolicyVersion",
      ]
      Resource = "*"
    }]
  })
}

output "serval_ingestion_role_arn" {
  value = aws_iam_role.serval_ingestion.arn
}
