-- +goose Up

-- A notice may be about something else than a request, and says what it is for.
create table notice_next (
  id         text   not null primary key,
  kind       text   not null,
  request_id text   references request (id),
  channel    text   not null,
  recipients text   not null,
  facts      text   not null,
  created_at bigint not null,
  state      text   not null check (state in ('pending', 'sent', 'failed')),
  attempts   bigint not null,
  next_at    bigint not null,
  ended_at   bigint not null,
  error      text   not null,
  purpose    text   not null default '',
  check ((state = 'pending') = (ended_at = 0)),
  check ((state = 'pending') = (next_at <> 0))
);
insert into notice_next (id, kind, request_id, channel, recipients, facts, created_at, state, attempts, next_at, ended_at, error)
  select id, kind, request_id, channel, recipients, facts, created_at, state, attempts, next_at, ended_at, error from notice;
drop table notice;
alter table notice_next rename to notice;
create index notice_by_request on notice (request_id, created_at);
create index notice_due on notice (next_at) where state = 'pending';
create index notice_by_state on notice (state, created_at);
create index notice_sent on notice (ended_at) where state = 'sent';

-- +goose Down
drop index notice_sent;
drop index notice_by_state;
create table notice_before (
  id         text   not null primary key,
  kind       text   not null,
  request_id text   not null references request (id),
  channel    text   not null,
  recipients text   not null,
  facts      text   not null,
  created_at bigint not null,
  state      text   not null check (state in ('pending', 'sent', 'failed')),
  attempts   bigint not null,
  next_at    bigint not null,
  ended_at   bigint not null,
  error      text   not null,
  check ((state = 'pending') = (ended_at = 0)),
  check ((state = 'pending') = (next_at <> 0))
);
insert into notice_before select id, kind, request_id, channel, recipients, facts, created_at, state, attempts, next_at, ended_at, error
  from notice where request_id is not null;
drop table notice;
alter table notice_before rename to notice;
create index notice_by_request on notice (request_id, created_at);
create index notice_due on notice (next_at) where state = 'pending';
