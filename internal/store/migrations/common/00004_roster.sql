-- +goose Up

-- Another number after every change of the account's roles or its name.
alter table account add column roles_version bigint not null default 1;

create index event_by_name on event (actor, seq);
create index event_by_outcome on event (outcome, seq);

create index request_by_clock on request (role_id, account_id, clock_started_at) where clock_started_at <> 0;

-- +goose Down
drop index request_by_clock;
drop index event_by_outcome;
drop index event_by_name;
alter table account drop column roles_version;
