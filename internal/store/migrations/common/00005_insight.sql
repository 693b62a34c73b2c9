-- +goose Up

-- What a role can do, as the insight room writes it to search by; empty where
-- nobody has looked. It is worked out anew with every sync.
alter table role add column ability text not null default '';
alter table staged_role add column ability text not null default '';

-- How many times a role has changed, and when it did last.
alter table role add column version bigint not null default 0;
alter table role add column changed_at bigint not null default 0;

-- What a role was, each time that it changed; the last is what it is. Documents
-- are kept by digest. So many are kept, and those that an open request was
-- approved for.
create table role_version (
  account_id          text   not null,
  role_id             text   not null,
  number              bigint not null,
  at                  bigint not null, -- when it was taken in
  partition           text   not null,
  arn                 text   not null,
  name                text   not null,
  path                text   not null,
  description         text   not null,
  created_at          bigint not null,
  max_session_seconds bigint not null,
  tags                text   not null,
  trust               text   not null,
  boundary            text   not null,
  last_used_at        bigint not null,
  policies            text   not null,
  complete            bigint not null,
  digest              text   not null,
  shown               text   not null,
  ability             text   not null,
  primary key (account_id, role_id, number),
  foreign key (account_id, role_id) references role (account_id, role_id)
);

-- Which version of its role an allocation was approved for.
create table approved_version (
  request_id text   not null references request (id),
  number     bigint not null, -- of the allocation
  account_id text   not null,
  role_id    text   not null,
  version    bigint not null,
  ability    text   not null,
  primary key (request_id, number)
);

create index approved_version_by_role on approved_version (account_id, role_id);

-- +goose Down
drop table approved_version;
drop table role_version;
alter table role drop column changed_at;
alter table role drop column version;
alter table staged_role drop column ability;
alter table role drop column ability;
