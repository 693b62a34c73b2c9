assume_role_policy = jsonencode({
  Id      = "x"
  Version = "2012-10-17"
  Statement = [
    {
      Sid    = "Okta"
      Effect = "Allow"
      Principal = {
        Federated = "arn:aws:iam::111122223333:oidc-provider/x.okta.com/oauth2/aus1"
      }
      Action = [
        "sts:AssumeRoleWithWebIdentity",
        "sts:TagSession"
      ]
      Condition = {
        StringEquals = {
          "x.okta.com/oauth2/aus1:aud" = "0oa1"
        }
        StringNotEquals = {
          "sts:RoleSessionName" = [
            "$${aws:username, 'a\"b\\c'}",
            "%%{x}"
          ]
        }
        Bool = {
          "aws:SecureTransport" = true
        }
      }
    },
    {
      Effect    = "Deny"
      Principal = "*"
      Action = [
        "sts:GetFederationToken"
      ]
      Condition = {
        NumericEquals = {
          "aws:EpochTime" = "1e3"
        }
      }
    }
  ]
})
