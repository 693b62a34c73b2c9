mock_provider "aws" {
  mock_resource "aws_iam_role" {
    defaults = {
      arn = "arn:aws:iam::111122223333:role/serval-ingestion"
    }
  }
  mock_resource "aws_iam_openid_connect_provider" {
    defaults = {
      arn = "arn:aws:iam::111122223333:oidc-provider/acme.okta.com"
    }
  }
}

variables {
  trusted_account_id = "999988887777"
  external_id        = "3f7a1c0e5b9d2846a0c4e8f1b3d5079e6a2c4f8b1d3e5079a6c8e0f2b4d61728"
}

run "only_the_ingestion_role" {
  # trust.json and permissions.json are what the bridge shows to paste; a test holds them against it.
  assert {
    condition     = jsondecode(aws_iam_role.ingestion.assume_role_policy) == jsondecode(file("tests/trust.json"))
    error_message = "The trust policy is ${aws_iam_role.ingestion.assume_role_policy}"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.ingestion.policy) == jsondecode(file("tests/permissions.json"))
    error_message = "The permissions are ${aws_iam_role_policy.ingestion.policy}"
  }
  assert {
    condition     = output.ingestion_role_arn == aws_iam_role.ingestion.arn && output.oidc_provider_arn == null && output.workflow_role_arn == null
    error_message = "The outputs are wrong."
  }
}

run "with_the_oidc_provider" {
  variables {
    issuer     = "https://acme.okta.com"
    client_ids = ["0oa1example"]
  }
  assert {
    condition     = aws_iam_openid_connect_provider.people[0].url == "https://acme.okta.com" && tolist(aws_iam_openid_connect_provider.people[0].client_id_list) == tolist(["0oa1example"])
    error_message = "The OIDC provider is of another issuer or client."
  }
  assert {
    condition     = output.oidc_provider_arn == "arn:aws:iam::111122223333:oidc-provider/acme.okta.com"
    error_message = "The output is ${output.oidc_provider_arn}"
  }
}

run "details_and_accounts" {
  variables {
    allow_details      = true
    list_accounts      = true
    read_oidc_provider = true
  }
  assert {
    condition     = length(jsondecode(aws_iam_role_policy.ingestion.policy).Statement[0].Action) == 10
    error_message = "The permissions are ${aws_iam_role_policy.ingestion.policy}"
  }
}

run "a_workflow_role_that_cannot_leave_its_boundary" {
  variables {
    workflow_boundary = "arn:aws:iam::111122223333:policy/serval-boundary"
  }
  assert {
    condition = alltrue([
      for s in jsondecode(aws_iam_role_policy.workflow[0].policy).Statement :
      s.Resource == "arn:aws:iam::*:role/serval/*" && (s.Action == "iam:TagRole" || try(s.Condition.StringEquals["iam:PermissionsBoundary"], "") == "arn:aws:iam::111122223333:policy/serval-boundary")
    ])
    error_message = "The workflow role may more: ${aws_iam_role_policy.workflow[0].policy}"
  }
  assert {
    condition     = !strcontains(aws_iam_role_policy.ingestion.policy, "iam:Create") && aws_iam_role.workflow[0].name == "serval-ingestion-workflow"
    error_message = "The ingestion role writes."
  }
}

run "refuses_an_account_id_with_spaces" {
  command = plan
  variables {
    trusted_account_id = "9999 8888 7777"
  }
  expect_failures = [var.trusted_account_id]
}

run "refuses_an_external_id_with_spaces" {
  command = plan
  variables {
    external_id = "two words"
  }
  expect_failures = [var.external_id]
}

run "refuses_an_issuer_that_aws_refuses" {
  command = plan
  variables {
    issuer     = "https://login.example.com:8443"
    client_ids = ["x"]
  }
  expect_failures = [var.issuer]
}

run "refuses_an_issuer_without_a_client" {
  command = plan
  variables {
    issuer = "https://acme.okta.com"
  }
  expect_failures = [aws_iam_openid_connect_provider.people]
}

run "refuses_the_tag_of_requestable_roles" {
  command = plan
  variables {
    tags = { serval = "x" }
  }
  expect_failures = [var.tags]
}

run "refuses_a_place_that_the_workflow_role_writes_to" {
  command = plan
  variables {
    role_path = "/serval/"
  }
  expect_failures = [var.role_path]
}
