-- +goose Up

-- SQLite went by the state alone to what is due on a channel, and to what of one
-- request is pending: through all that waits for a receiver which is away.
drop index notice_due;
create index notice_due on notice (channel, next_at, created_at) where state = 'pending';
drop index notice_by_request;
create index notice_by_request on notice (request_id, state, created_at);

-- +goose Down
drop index notice_by_request;
create index notice_by_request on notice (request_id, created_at);
drop index notice_due;
create index notice_due on notice (next_at) where state = 'pending';
