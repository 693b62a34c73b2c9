-- +goose Up

-- What one subscriber may have all of, an IPv6 /48: many networks of one push out
-- nobody else's. Those begun under a version before are of none, and count together
-- for the ten minutes that they last.
alter table login_attempt add column site text not null default '';

-- +goose Down
alter table login_attempt drop column site;
