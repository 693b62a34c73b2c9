mock_provider "aws" {}

variables {
  name              = "dev-payments"
  oidc_provider_arn = "arn:aws:iam::111122223333:oidc-provider/acme.okta.com/oauth2/default"
  client_id         = "0oa1example"
}

run "the_least" {
  # A test holds trust.json against what the bridge says of trust policies.
  assert {
    condition     = jsondecode(aws_iam_role.this.assume_role_policy) == jsondecode(file("tests/trust.json"))
    error_message = "The trust policy is ${aws_iam_role.this.assume_role_policy}"
  }
  assert {
    condition     = aws_iam_role.this.tags == tomap({ serval = "" })
    error_message = "The tag serval is missing."
  }
}

run "from_the_bridge_alone" {
  variables {
    egress_cidrs = ["203.0.113.7/32"]
  }
  assert {
    condition     = jsondecode(aws_iam_role.this.assume_role_policy) == jsondecode(file("tests/pinned.json"))
    error_message = "The trust policy is ${aws_iam_role.this.assume_role_policy}"
  }
}

run "through_the_endpoint_alone" {
  variables {
    vpc_endpoint_id = "vpce-0123456789abcdef0"
  }
  assert {
    condition     = jsondecode(aws_iam_role.this.assume_role_policy) == jsondecode(file("tests/endpoint.json"))
    error_message = "The trust policy is ${aws_iam_role.this.assume_role_policy}"
  }
}

run "policies_and_tags" {
  variables {
    policy_arns          = ["arn:aws:iam::aws:policy/ReadOnlyAccess"]
    inline_policies      = { logs = "{\"Version\":\"2012-10-17\",\"Statement\":[]}" }
    max_session_duration = 14400
    tags                 = { team = "payments" }
    serval               = "yes"
  }
  assert {
    condition     = aws_iam_role_policy_attachment.this["arn:aws:iam::aws:policy/ReadOnlyAccess"].role == "dev-payments" && aws_iam_role_policy.this["logs"].role == "dev-payments"
    error_message = "The policies are another role's."
  }
  assert {
    condition     = aws_iam_role.this.tags == tomap({ serval = "yes", team = "payments" }) && aws_iam_role.this.max_session_duration == 14400
    error_message = "Tags or length are wrong."
  }
}

run "nobody_can_ask_for_it" {
  variables {
    serval = null
    tags   = { team = "payments" }
  }
  assert {
    condition     = aws_iam_role.this.tags == tomap({ team = "payments" })
    error_message = "It has the tag."
  }
}

run "refuses_both_ways_to_pin" {
  command = plan
  variables {
    egress_cidrs    = ["203.0.113.7/32"]
    vpc_endpoint_id = "vpce-0123456789abcdef0"
  }
  expect_failures = [aws_iam_role.this]
}

run "refuses_any_client" {
  command = plan
  variables {
    client_id = "*"
  }
  expect_failures = [var.client_id]
}

run "refuses_a_near_miss_of_the_tag" {
  command = plan
  variables {
    tags = { "Serval " = "" }
  }
  expect_failures = [var.tags]
}

run "refuses_a_length_that_aws_refuses" {
  command = plan
  variables {
    max_session_duration = 1800
  }
  expect_failures = [var.max_session_duration]
}

run "refuses_a_network_that_is_none" {
  command = plan
  variables {
    egress_cidrs = ["203.0.113.7"]
  }
  expect_failures = [var.egress_cidrs]
}

run "refuses_a_network_of_everybody" {
  command = plan
  variables {
    egress_cidrs = ["0.0.0.0/0"]
  }
  expect_failures = [var.egress_cidrs]
}
