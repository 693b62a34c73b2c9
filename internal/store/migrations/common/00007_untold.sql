-- +goose Up

-- Roles whose change nobody was told of yet, and since which version: it is worked
-- out after a push, and not in its transaction.
create table untold (
  account_id text   not null,
  role_id    text   not null,
  version    bigint not null,
  primary key (account_id, role_id),
  foreign key (account_id, role_id) references role (account_id, role_id)
);

-- +goose Down
drop table untold;
