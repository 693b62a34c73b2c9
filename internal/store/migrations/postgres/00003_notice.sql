-- +goose Up

-- A notice may be about something else than a request, and says what it is for.
alter table notice alter column request_id drop not null;
alter table notice add column purpose text not null default '';
create index notice_by_state on notice (state, created_at);
create index notice_sent on notice (ended_at) where state = 'sent';

-- +goose Down
drop index notice_sent;
drop index notice_by_state;
delete from notice where request_id is null;
alter table notice drop column purpose;
alter table notice alter column request_id set not null;
