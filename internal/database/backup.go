package database

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// Backup writes the database as it is at one instant to a new file at path, while
// it is being served, and readable by nobody else. Under PostgreSQL it refuses:
// that has its own ways. An existing file is refused, and after an error there is
// none.
func (d *DB) Backup(ctx context.Context, path string) (err error) {
	if err := d.checkBackup(); err != nil {
		return err
	}
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return serval.Refuse(serval.Conflict, "%s is there already; name a new file.", path)
	}
	part := path + ".part"
	f, err := os.OpenFile(part, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(part)
		}
	}()
	if err := f.Close(); err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	if err := d.backup(ctx, part); err != nil {
		return fmt.Errorf("writing the backup: %w", err)
	}
	// It is a backup once it is on the disk, under its name.
	for _, step := range []func() error{
		func() error { return flush(part) }, func() error { return os.Rename(part, path) }, func() error { return flush(filepath.Dir(path)) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("keeping the backup: %w", err)
		}
	}
	return nil
}

// BackupTo writes to w what Backup writes to a file: whole, or with an error. It is
// made beside the database first, which takes as much room again while it lasts.
func (d *DB) BackupTo(ctx context.Context, w io.Writer) error {
	if err := d.checkBackup(); err != nil {
		return err
	}
	var file string
	if err := d.read.QueryRowContext(ctx, `select file from pragma_database_list where name = 'main'`).Scan(&file); err != nil {
		return fmt.Errorf("finding the database's folder: %w", err)
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), ".backup-")
	if err != nil {
		return fmt.Errorf("making the backup: %w", err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "serval.db")
	if err := d.Backup(ctx, path); err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("reading the backup: %w", err)
	}
	defer f.Close()
	// Gone already while it is read: whoever stops reading ends this program, and
	// nothing may be left then.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clearing up after the backup: %w", err)
	}
	if _, err := io.Copy(w, f); err != nil {
		return fmt.Errorf("writing the backup: %w", err)
	}
	return nil
}

// checkBackup refuses a database that is not backed up from here.
func (d *DB) checkBackup() error {
	if !d.dialect.alone {
		return serval.Refuse(serval.FailedPrecondition, "PostgreSQL is backed up by its own tools: pg_dump, or a base backup with its log. Then: serval-bridge restored.")
	}
	return nil
}

// backup copies the database into the empty file at path.
func (d *DB) backup(ctx context.Context, path string) error {
	conn, err := d.read.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	// The copy is written by the connection that reads, which otherwise may not.
	if _, err := conn.ExecContext(ctx, `pragma query_only = 0`); err != nil {
		return err
	}
	_, err = conn.ExecContext(ctx, `vacuum into $1`, path)
	_, again := conn.ExecContext(context.WithoutCancel(ctx), `pragma query_only = 1`)
	return errors.Join(err, again)
}

// flush has a file, or a folder, on the disk.
func flush(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
