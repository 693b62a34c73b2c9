-- +goose Up
-- +goose StatementBegin
create function event_append_only() returns trigger language plpgsql as $$
begin
  raise exception 'the audit log is append-only';
end
$$;
-- +goose StatementEnd
create trigger event_no_change before update or delete on event
  for each row execute function event_append_only();
create trigger event_no_truncate before truncate on event
  for each statement execute function event_append_only();

-- +goose Down
drop trigger event_no_truncate on event;
drop trigger event_no_change on event;
drop function event_append_only();
