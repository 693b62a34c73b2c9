-- +goose Up

-- What the last full sync learned of the IAM OIDC provider of the issuer, as JSON;
-- null where nobody asked.
alter table account add column oidc_provider text not null default 'null';

-- +goose Down
alter table account drop column oidc_provider;
