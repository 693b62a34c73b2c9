-- +goose Up

-- Since when perhaps no role and no version refers to the document; 0 where one
-- does for all that is known.
alter table document add column idle_since bigint not null default 0;
create index document_idle on document (idle_since) where idle_since <> 0;

-- When the version was given up, 0 where it is kept. Its documents may be idle.
alter table role_version add column dropped_at bigint not null default 0;
create index role_version_dropped on role_version (dropped_at) where dropped_at <> 0;

-- +goose Down
drop index role_version_dropped;
delete from role_version where dropped_at <> 0;
alter table role_version drop column dropped_at;
drop index document_idle;
alter table document drop column idle_since;
