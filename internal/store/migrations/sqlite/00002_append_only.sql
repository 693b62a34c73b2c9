-- +goose Up
-- +goose StatementBegin
create trigger event_no_update before update on event
begin
  select raise(abort, 'the audit log is append-only');
end;
-- +goose StatementEnd
-- +goose StatementBegin
-- An "insert or replace" deletes without a delete trigger.
create trigger event_no_replace before insert on event
when exists (select 1 from event where seq = new.seq)
begin
  select raise(abort, 'the audit log is append-only');
end;
-- +goose StatementEnd
-- +goose StatementBegin
create trigger event_no_delete before delete on event
begin
  select raise(abort, 'the audit log is append-only');
end;
-- +goose StatementEnd

-- +goose Down
drop trigger event_no_delete;
drop trigger event_no_replace;
drop trigger event_no_update;
