package store

import (
	"context"
	"io"
)

// Backup writes the database as it is at one instant to a new file at path, while
// it is being served, and readable by nobody else. Under PostgreSQL it refuses:
// that has its own ways. An existing file is refused, and after an error there is
// none.
func (s *Store) Backup(ctx context.Context, path string) error { return s.db.Backup(ctx, path) }

// BackupTo writes to w what Backup writes to a file: whole, or with an error. It is
// made beside the database first, which takes as much room again while it lasts.
func (s *Store) BackupTo(ctx context.Context, w io.Writer) error { return s.db.BackupTo(ctx, w) }

// restoredGap is by how much generations go on after a database was set back: more
// than were ever issued after the backup.
const restoredGap = 1_000_000

// Restored makes a database that was set back to an earlier state safe to serve:
// what was signed in then is not now, what was on its way to sign in or to the
// console is gone, and what a worker opened before is nobody's. It asks for every
// account to be read in full, and returns how many logins it ended.
func (t *Tx) Restored() (logins int64, err error) {
	if logins, err = t.execCount("ending all logins", `update login set ended_at = $1 where ended_at = 0`, micros(t.Now)); err != nil {
		return 0, err
	}
	for _, step := range []func() error{
		func() error { return t.exec("wiping all ID tokens", `update id_token set sealed = '', refresh = ''`) },
		func() error { return t.exec("dropping sign-ins under way", `delete from login_attempt`) },
		func() error { return t.exec("dropping clients under way", `delete from client_attempt`) },
		func() error { return t.exec("dropping ways to the console", `delete from console_link`) },
		func() error {
			return t.exec("asking for all accounts", `update account set generation = generation + $1, claimed_by = '', claimed_until = 0, sync_requested_at = $2
				where removed_at = 0`, restoredGap, micros(t.Now))
		},
	} {
		if err := step(); err != nil {
			return 0, err
		}
	}
	return logins, nil
}
