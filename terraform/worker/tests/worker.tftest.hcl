mock_provider "aws" {
  mock_resource "aws_iam_role" {
    defaults = {
      arn = "arn:aws:iam::999988887777:role/serval-worker"
    }
  }
}

variables {
  cluster_arn = "arn:aws:eks:eu-central-1:999988887777:cluster/prod"
}

run "the_default_is_pod_identity_and_any_role" {
  assert {
    condition     = jsondecode(aws_iam_role.worker.assume_role_policy) == jsondecode(file("tests/trust.json"))
    error_message = "The trust policy is ${aws_iam_role.worker.assume_role_policy}"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.assume.policy) == jsondecode(file("tests/any.json"))
    error_message = "The policy is ${aws_iam_role_policy.assume.policy}"
  }
  assert {
    condition = (
      aws_eks_pod_identity_association.worker[0].cluster_name == "prod" &&
      aws_eks_pod_identity_association.worker[0].namespace == "serval" &&
      aws_eks_pod_identity_association.worker[0].service_account == "serval-worker-sa" &&
      aws_eks_pod_identity_association.worker[0].role_arn == aws_iam_role.worker.arn
    )
    error_message = "The association is of another service account."
  }
  assert {
    condition     = output.trusted_account_id == "999988887777" && output.role_arn == "arn:aws:iam::999988887777:role/serval-worker"
    error_message = "The outputs are wrong."
  }
  assert {
    condition     = !contains(keys(coalesce(aws_iam_role.worker.tags, {})), "serval")
    error_message = "The worker's role could be requested."
  }
}

run "the_tighter_variant" {
  variables {
    ingestion_role_arns = ["arn:aws:iam::*:role/serval-ingestion", "arn:aws:iam::111122223333:role/hub"]
    organization_id     = "o-a1b2c3d4e5"
  }
  assert {
    condition     = jsondecode(aws_iam_role_policy.assume.policy) == jsondecode(file("tests/tight.json"))
    error_message = "The policy is ${aws_iam_role_policy.assume.policy}"
  }
}

run "irsa_has_no_association" {
  variables {
    irsa_oidc_provider_arn = "arn:aws:iam::999988887777:oidc-provider/oidc.eks.eu-central-1.amazonaws.com/id/ABCDEF"
    namespace              = "access"
  }
  assert {
    condition     = jsondecode(aws_iam_role.worker.assume_role_policy) == jsondecode(file("tests/irsa.json"))
    error_message = "The trust policy is ${aws_iam_role.worker.assume_role_policy}"
  }
  assert {
    condition     = length(aws_eks_pod_identity_association.worker) == 0
    error_message = "There is an association beside IRSA."
  }
}

run "refuses_what_is_no_cluster" {
  command = plan
  variables {
    cluster_arn = "prod"
  }
  expect_failures = [var.cluster_arn]
}

run "refuses_roles_that_are_none" {
  command = plan
  variables {
    ingestion_role_arns = ["serval-ingestion"]
  }
  expect_failures = [var.ingestion_role_arns]
}

run "refuses_no_roles" {
  command = plan
  variables {
    ingestion_role_arns = []
  }
  expect_failures = [var.ingestion_role_arns]
}

run "refuses_the_tag_of_requestable_roles" {
  command = plan
  variables {
    tags = { serval = "" }
  }
  expect_failures = [var.tags]
}

run "refuses_an_organization_that_is_none" {
  command = plan
  variables {
    organization_id = "acme"
  }
  expect_failures = [var.organization_id]
}
