package database

import (
	"context"
	"database/sql/driver"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

// A login is who connections are made as. It is known by its address: each Rotate
// makes another.
type login struct{ user, password string }

// loginMark is where a connection keeps the login that it was made as.
const loginMark = "serval login"

// tryTime bounds the attempt to connect that Rotate makes.
const tryTime = 5 * time.Second

// Rotate has connections be made by the user and the password of u from now on,
// once they have been seen to work: where they do not, it is an error and nothing
// changes. What connections that are open are in the middle of goes on; none is used
// for anything else. An address that differs in more is refused, and so is every one
// of SQLite.
func (d *DB) Rotate(ctx context.Context, u serval.Secret) error {
	if d.login.Load() == nil {
		return serval.Refuse(serval.FailedPrecondition, "there is no user and no password to change of this database: restart")
	}
	config, err := parsePostgres(u.Reveal())
	if err != nil {
		return err
	}
	if d.place != place(u.Reveal()) {
		return serval.Refuse(serval.FailedPrecondition, "only user and password of the address can be changed without a restart")
	}
	ctx, cancel := context.WithTimeout(ctx, tryTime)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return fmt.Errorf("connecting to PostgreSQL: %w", redacted(err))
	}
	_ = conn.Close(ctx) // it has shown what it had to
	d.login.Store(&login{config.User, config.Password})
	return nil
}

// place returns an address, which pgx takes, without who connects there.
func place(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return "" // pgx would not take it either
	}
	query := u.Query()
	query.Del("user")
	query.Del("password")
	u.User, u.RawQuery = nil, query.Encode()
	return u.String()
}

// A connector connects to PostgreSQL as whoever the login is at that time. A
// connection is given up once there is another.
type connector struct {
	driver.Connector
	login *atomic.Pointer[login]
}

// Connect connects. Who was locked out while they connected has had a successor
// before, who is let in.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	as := c.login.Load()
	conn, err := c.Connector.Connect(ctx)
	if err != nil && c.login.Load() != as {
		return c.Connector.Connect(ctx)
	}
	return conn, err
}

// connector returns what connects as the login of the day.
func (d *DB) connector(config *pgx.ConnConfig) connector {
	return connector{stdlib.GetConnector(*config,
		stdlib.OptionBeforeConnect(func(_ context.Context, c *pgx.ConnConfig) error {
			now := d.login.Load()
			c.User, c.Password = now.user, now.password
			return nil
		}),
		stdlib.OptionAfterConnect(func(_ context.Context, c *pgx.Conn) error {
			if made, now := c.Config(), d.login.Load(); made.User == now.user && made.Password == now.password {
				c.PgConn().CustomData()[loginMark] = now
			}
			return nil
		}),
		stdlib.OptionResetSession(func(_ context.Context, c *pgx.Conn) error {
			if c.PgConn().CustomData()[loginMark] != any(d.login.Load()) {
				return driver.ErrBadConn // the pool makes another
			}
			return nil
		}),
	), &d.login}
}
