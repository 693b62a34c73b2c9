package database

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
)

// Migrate brings the database to the schema that migrations end in. They are
// goose's, in the folders common, sqlite and postgres: those of the first and
// those of this database count as one. One does it at a time, be it called at once
// here or, under PostgreSQL, which has an advisory lock for that, by several replicas.
func (d *DB) Migrate(ctx context.Context, migrations fs.FS) error {
	p, err := d.provider(migrations)
	if err != nil {
		return err
	}
	d.migrating.Lock()
	defer d.migrating.Unlock()
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrating the database: %w", err)
	}
	return nil
}

// Pending reports whether Migrate would change the database.
func (d *DB) Pending(ctx context.Context, migrations fs.FS) (bool, error) {
	p, err := d.provider(migrations)
	if err != nil {
		return false, err
	}
	pending, err := p.HasPending(ctx)
	if err != nil {
		return false, fmt.Errorf("reading the database's version: %w", err)
	}
	return pending, nil
}

func (d *DB) provider(migrations fs.FS) (*goose.Provider, error) {
	var files layers
	for _, dir := range []string{"common", d.dialect.name} {
		sub, err := fs.Sub(migrations, dir)
		if err != nil {
			return nil, err
		}
		files = append(files, sub)
	}
	var options []goose.ProviderOption
	if d.dialect.goose == goose.DialectPostgres {
		// Ask for the lock every second, for five minutes.
		locker, err := lock.NewPostgresSessionLocker(lock.WithLockTimeout(1, 300))
		if err != nil {
			return nil, fmt.Errorf("preparing the migration lock: %w", err)
		}
		options = append(options, goose.WithSessionLocker(locker))
	}
	p, err := goose.NewProvider(d.dialect.goose, d.write, files, options...)
	if err != nil {
		return nil, fmt.Errorf("reading the migrations: %w", err)
	}
	return p, nil
}

// layers are folders seen as one: the migrations that are alike, and those of
// one database.
type layers []fs.FS

// Open opens name in the first layer that has it.
func (l layers) Open(name string) (fs.File, error) {
	for _, layer := range l {
		if f, err := layer.Open(name); err == nil || !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
	return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
}

// ReadDir lists the files of all layers.
func (l layers) ReadDir(name string) ([]fs.DirEntry, error) {
	var entries []fs.DirEntry
	for _, layer := range l {
		e, err := fs.ReadDir(layer, name)
		if err != nil {
			return nil, err
		}
		entries = append(entries, e...)
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, nil
}
