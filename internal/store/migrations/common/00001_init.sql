-- +goose Up

-- Times are microseconds since 1970 UTC, 0 for none. Ids are made in Go.
-- Nested values that are never searched are JSON text.

create table meta (
  name  text not null primary key,
  value text not null
);

-- The head of the audit chain; one row. Every write transaction takes it first,
-- so that acts happen one after the other.
create table chain (
  id   bigint not null primary key check (id = 1),
  seq  bigint not null,
  hash text   not null,
  at   bigint not null
);

insert into chain (id, seq, hash, at) values (1, 0, '', 0);

create table event (
  seq        bigint not null primary key,
  at         bigint not null,
  actor_kind text   not null,
  actor_id   text   not null,
  actor      text   not null,
  action     text   not null,
  target     text   not null,
  outcome    text   not null,
  reason     text   not null,
  request_id text   not null,
  address    text   not null,
  detail     text   not null,
  key_id     text   not null,
  hash       text   not null
);

create index event_by_target on event (target, seq);
create index event_by_actor on event (actor_id, seq);
create index event_by_action on event (action, seq);

create table account (
  id                  text   not null primary key,
  name                text   not null,
  partition           text   not null,
  role_arn            text   not null,
  external_id         text   not null,
  settings            text   not null, -- via, sts, default_region, workflow_role_arn
  source              text   not null check (source in ('file', 'api')),
  created_at          bigint not null,
  removed_at          bigint not null,
  generation          bigint not null, -- the last that was issued
  claimed_by          text   not null,
  claimed_until       bigint not null,
  sync_requested_at   bigint not null,
  accepted_generation bigint not null,
  accepted_digest     text   not null,
  accepted_answer     text   not null, -- what the worker was told, for a repeat
  looked_at           bigint not null, -- when the last complete sync, full or delta, started
  accepted_at         bigint not null, -- of the last full sync, as is what follows
  started_at          bigint not null,
  finished_at         bigint not null,
  complete            bigint not null check (complete in (0, 1)),
  read_by             text   not null,
  unreadable          text   not null,
  near_misses         text   not null,
  problems            text   not null,
  check (accepted_generation <= generation)
);

-- Which AWS identity a worker has, as it says itself.
create table worker (
  name       text   not null primary key,
  arn        text   not null,
  partition  text   not null,
  account_id text   not null,
  bound      text   not null, -- JSON: the account ids that it was given; null for all
  seen_at    bigint not null
);

-- Access policies of the file and those made over the API, all that are in force.
create table access_policy (
  name       text   not null primary key,
  source     text   not null check (source in ('file', 'api')),
  priority   bigint not null, -- of the file: its place there
  body       text   not null,
  digest     text   not null,
  created_at bigint not null,
  changed_at bigint not null
);

-- Documents of roles that were taken in, by digest.
create table document (
  digest text not null primary key,
  body   text not null
);

create table role (
  account_id          text   not null references account (id),
  role_id             text   not null,
  partition           text   not null,
  arn                 text   not null,
  name                text   not null,
  path                text   not null,
  description         text   not null,
  created_at          bigint not null,
  max_session_seconds bigint not null,
  tags                text   not null,
  trust               text   not null, -- digest of the document, empty where unread
  boundary            text   not null,
  last_used_at        bigint not null,
  policies            text   not null, -- inline and managed, documents by digest
  complete            bigint not null check (complete in (0, 1)),
  digest              text   not null,
  shown               text   not null, -- digest of what GetRole alone shows
  seen_at             bigint not null,
  stale_since         bigint not null,
  stale_reason        text   not null,
  held_since          bigint not null,
  removed_at          bigint not null,
  removed_reason      text   not null,
  primary key (account_id, role_id)
);

create unique index role_live_arn on role (arn) where removed_at = 0;

-- Roles of a push on their way in. They become roles in one short transaction
-- when the whole push has come.
create table staged_role (
  account_id          text   not null,
  staged_at           bigint not null,
  role_id             text   not null,
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
  push                text   not null, -- which push staged it
  primary key (push, role_id),
  unique (push, arn)
);

-- Documents of a push on their way in, where they are not kept yet. What no
-- accepted push brings is never kept.
create table staged_document (
  push      text   not null,
  digest    text   not null,
  body      text   not null,
  staged_at bigint not null,
  primary key (push, digest)
);

create table person (
  id         text   not null primary key,
  issuer     text   not null,
  subject    text   not null,
  email      text   not null,
  email_fold text   not null,
  groups     text   not null,
  groups_at  bigint not null,
  groups_note text  not null, -- why groups are missing; empty where they are not
  authorized_party text not null, -- claim azp of the last ID token; empty where it has none
  suspended  text   not null,
  new_email  text   not null, -- of a person suspended because it changed
  created_at bigint not null,
  unique (issuer, subject)
);

create index person_by_email on person (email_fold);
create index person_by_time on person (created_at);
create index person_suspended on person (created_at) where suspended <> '';

-- Writes that may be sent again, by the key that a person gave them, for a day.
-- Done is set in the transaction of the effect.
create table repeat (
  person_id       text   not null references person (id),
  idempotency_key text   not null,
  digest          text   not null, -- SHA-256 of what was sent
  claim           text   not null unique,
  claimed_until   bigint not null,
  done            bigint not null check (done in (0, 1)),
  status          bigint not null, -- of the answer, 0 where none is kept
  answer          text   not null,
  created_at      bigint not null,
  primary key (person_id, idempotency_key)
);

create index repeat_by_time on repeat (created_at);

-- A login attempt between /oidc/auth/login and the callback. It is taken once.
create table login_attempt (
  state      text   not null primary key, -- SHA-256
  browser    text   not null,             -- SHA-256 of the cookie it is bound to
  sealed     text   not null,             -- nonce and PKCE verifier
  network    text   not null,             -- that it is counted to
  created_at bigint not null,
  expires_at bigint not null
);

create index login_attempt_by_expiry on login_attempt (expires_at);
create index login_attempt_by_network on login_attempt (network, created_at);

-- What the identity provider gave at one sign-in, sealed. The browser's login
-- stands on it, and so does that of each client it let in.
create table id_token (
  id            text   not null primary key,
  sealed        text   not null, -- empty once it has ended, or no login stands on it
  ends_at       bigint not null,
  auth_time     bigint not null,
  refresh       text   not null, -- refresh token, sealed; empty where there is none
  refreshed_at  bigint not null, -- when the ID token was asked for
  claimed_until bigint not null  -- somebody trades the refresh token until then
);

create index id_token_held on id_token (id) where sealed <> '' or refresh <> '';

create table login (
  id          text   not null primary key,
  token       text   not null unique, -- SHA-256 of what the browser or client holds
  person_id   text   not null references person (id),
  kind        text   not null check (kind in ('browser', 'client')),
  created_at  bigint not null,
  seen_at     bigint not null,
  expires_at  bigint not null,
  ended_at    bigint not null,
  address     text   not null,
  agent       text   not null,
  id_token_id text   not null references id_token (id)
);

create index login_by_person on login (person_id, created_at);
create index login_by_id_token on login (id_token_id);

-- A client that signs in: from the consent, or for a device from its start, to
-- the token. It is taken once.
create table client_attempt (
  code         text   not null primary key, -- SHA-256 of what the client brings
  typed        text   not null,             -- SHA-256 of what is typed for a device; empty otherwise
  challenge    text   not null,             -- PKCE, S256
  redirect_uri text   not null,             -- empty for a device
  name         text   not null,             -- what the client calls itself, and its machine
  host         text   not null,
  address      text   not null,             -- network that it is counted to
  started_from text   not null,             -- address of a device
  outcome      text   not null check (outcome in ('', 'approved', 'denied')),
  login_id     text   not null,             -- the browser's that approved; empty before
  polled_at    bigint not null,
  pause        bigint not null,             -- to be kept between two polls
  created_at   bigint not null,
  expires_at   bigint not null
);

create unique index client_attempt_by_typed on client_attempt (typed) where typed <> '';
create index client_attempt_by_expiry on client_attempt (expires_at);

create table request (
  id               text   not null primary key,
  batch_id         text   not null,
  person_id        text   not null references person (id),
  email            text   not null,
  partition        text   not null,
  account_id       text   not null,
  role_id          text   not null,
  role_arn         text   not null,
  terms            text   not null,
  status           text   not null check (status in ('pending', 'approved', 'denied', 'expired', 'revoked', 'canceled', 'failed')),
  ended_by         text   not null check (ended_by in ('', 'time', 'unused', 'done')),
  justification    text   not null,
  ticket           text   not null,
  start_at         bigint not null,
  created_at       bigint not null,
  expires_at       bigint not null,
  ended_at         bigint not null,
  clock_started_at bigint not null,
  ends_at          bigint not null,
  due_at           bigint not null, -- when time ends it; 0 once it has ended
  check ((clock_started_at = 0) = (ends_at = 0)),
  check (ends_at = 0 or ends_at > clock_started_at)
);

create index request_by_time on request (created_at);
create index request_by_person on request (person_id, created_at);
create index request_by_status on request (status, created_at);
create index request_by_role on request (role_id, account_id, status);
create index request_by_due on request (due_at) where due_at <> 0;

create table allocation (
  request_id    text   not null references request (id),
  number        bigint not null,
  minutes       bigint not null check (minutes > 0),
  state         text   not null check (state in ('pending', 'active', 'superseded', 'denied', 'closed')),
  justification text   not null,
  asked_at      bigint not null,
  decided_by    text   not null,
  decided_at    bigint not null,
  superseded_at bigint not null,
  reason        text   not null,
  break_glass   bigint not null check (break_glass in (0, 1)),
  steps         text   not null,
  primary key (request_id, number)
);

create unique index allocation_one_active on allocation (request_id) where state = 'active';
create unique index allocation_one_pending on allocation (request_id) where state = 'pending';

-- What people are to be told outside of the pages, one row for each channel.
-- Written in the transaction of what it tells of. Whoever delivers claims a
-- pending row by moving next_at past its own deadline, and counts the attempt
-- with that; a row is sent, or failed for good.
create table notice (
  id         text   not null primary key,
  kind       text   not null, -- the action that it tells of
  request_id text   not null references request (id),
  channel    text   not null, -- empty where none is configured
  recipients text   not null, -- groups and emails
  facts      text   not null,
  created_at bigint not null,
  state      text   not null check (state in ('pending', 'sent', 'failed')),
  attempts   bigint not null,
  next_at    bigint not null, -- 0 once it is sent or failed
  ended_at   bigint not null, -- 0 while it is pending
  error      text   not null,
  check ((state = 'pending') = (ended_at = 0)),
  check ((state = 'pending') = (next_at <> 0))
);

create index notice_by_request on notice (request_id, created_at);
create index notice_due on notice (next_at) where state = 'pending';

create table session (
  id              text   not null primary key,
  request_id      text   not null references request (id),
  person_id       text   not null references person (id),
  kind            text   not null check (kind in ('credentials', 'console')),
  state           text   not null check (state in ('started', 'issued', 'failed', 'dropped', 'unknown')),
  partition       text   not null,
  account_id      text   not null,
  role_id         text   not null,
  role_arn        text   not null,
  session_name    text   not null,
  seconds         bigint not null,
  started_at      bigint not null,
  finished_at     bigint not null,
  access_key_id   text   not null,
  assumed_role_id text   not null,
  expiration      bigint not null,
  ends_at         bigint not null,
  error           text   not null,
  renews          text   not null
);

create index session_by_time on session (started_at);
create index session_by_request on session (request_id, started_at);
create index session_by_person on session (person_id, started_at);
create index session_open on session (started_at) where state = 'started';

create table console_link (
  code       text   not null primary key, -- a digest
  person_id  text   not null references person (id),
  request_id text   not null references request (id),
  asked      text   not null, -- JSON
  expires_at bigint not null
);

create index console_link_by_person on console_link (person_id, expires_at);
create index console_link_by_expiry on console_link (expires_at);

-- What an admin started: a workflow, or a check. It ends with its task, where it
-- has one; what is long over is dropped.
create table run (
  id            text   not null primary key,
  workflow      text   not null check (workflow in ('fetch-roles', 'list-accounts', 'create-role', 'check')),
  account_id    text   not null references account (id),
  role          text   not null, -- JSON of the role to be made, empty for none
  started_by    text   not null, -- a person's id
  started_email text   not null,
  started_at    bigint not null,
  status        text   not null check (status in ('pending', 'running', 'done', 'failed', 'denied', 'expired')),
  decided_by    text   not null,
  decided_email text   not null,
  decided_at    bigint not null,
  reason        text   not null,
  ended_at      bigint not null,
  due_at        bigint not null, -- when time ends it by itself, 0 for never
  result        text   not null,
  check ((ended_at = 0) = (status in ('pending', 'running')))
);

create index run_by_account on run (account_id, workflow, ended_at);
create index run_by_due on run (due_at) where due_at <> 0;
create index run_by_end on run (ended_at) where ended_at <> 0;

-- What a worker does for a run.
create table task (
  id         text   not null primary key,
  run_id     text   not null unique references run (id),
  account_id text   not null references account (id),
  kind       text   not null check (kind in ('check', 'list-accounts', 'create-role')),
  state      text   not null check (state in ('open', 'claimed', 'done', 'failed')),
  attempt    bigint not null,
  claimed_by text   not null,
  until_at   bigint not null,
  created_at bigint not null,
  ended_at   bigint not null,
  due_at     bigint not null, -- when time ends it by itself, 0 for never
  digest     text   not null, -- of the result that was taken
  check ((ended_at = 0) = (state in ('open', 'claimed')))
);

create unique index task_one_open on task (account_id, kind) where ended_at = 0 and kind <> 'create-role';
create index task_by_due on task (due_at) where due_at <> 0;

-- +goose Down
drop table task;
drop table run;
drop table console_link;
drop table session;
drop table notice;
drop table allocation;
drop table request;
drop table client_attempt;
drop table login;
drop table id_token;
drop table login_attempt;
drop table repeat;
drop table person;
drop table staged_document;
drop table staged_role;
drop table role;
drop table document;
drop table access_policy;
drop table worker;
drop table account;
drop table event;
drop table chain;
drop table meta;
