// Serval-demo runs the whole of Serval on loopback, in one process: a fake AWS
// with three connected accounts, an identity provider with people to sign in
// as, the bridge on a SQLite file in a temporary folder, and the worker. No AWS
// account is needed and none is touched.
//
// With --check it tells the whole story itself, over HTTP as browsers and AWS
// clients do, prints each step with its time, and exits: 0 if all of it held.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/serval-bridge/serval-bridge/internal/serval"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	code := run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// defaultListen is where the bridge listens unless SERVAL_DEMO_LISTEN says
// otherwise.
const defaultListen = "127.0.0.1:8080"

// maxReplicas is how many bridges a demo has at most.
const maxReplicas = 5

// run is the program, without the process around it. It returns the exit code:
// 0 done, 1 failed, 2 wrong usage.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("serval-demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	check := flags.Bool("check", false, "tell the whole story over HTTP, print each step, and exit")
	processes := flags.Bool("processes", false, "run the programs serval-bridge and serval-worker, found on the PATH, instead of their parts in this process")
	replicas := flags.Int("replicas", 1, "so many bridges behind a balancer; more than one needs a PostgreSQL database in SERVAL_DEMO_DATABASE_URL")
	verbose := flags.Bool("v", false, "show the log of bridge and worker")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintln(stderr, "serval-demo takes no arguments")
		return 2
	}
	listen := getenv("SERVAL_DEMO_LISTEN")
	if listen == "" {
		listen = defaultListen
		if *check {
			listen = "127.0.0.1:0" // a check runs beside a demo
		}
	}
	if err := loopback(listen); err != nil {
		fmt.Fprintln(stderr, "serval-demo: SERVAL_DEMO_LISTEN:", err)
		return 2
	}
	database := serval.NewSecret(getenv("SERVAL_DEMO_DATABASE_URL"))
	if *replicas > 1 && database.Empty() || *replicas < 1 || *replicas > maxReplicas {
		fmt.Fprintf(stderr, "serval-demo: --replicas is 1 to %d, and more than one needs SERVAL_DEMO_DATABASE_URL=postgres://…, an empty database\n", maxReplicas)
		return 2
	}
	o := options{listen: listen, verbose: *verbose, processes: *processes, replicas: *replicas, databaseURL: database, stderr: stderr}
	err := start(ctx, o, *check, stdout)
	if ctx.Err() != nil && !*check && errors.Is(err, context.Canceled) {
		err = nil // stopped while it was starting
	}
	if err != nil {
		fmt.Fprintln(stderr, "serval-demo:", err)
		return 1
	}
	return 0
}

// loopback refuses an address that others could reach: the demo's identity
// provider signs in whoever asks.
func loopback(address string) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not host:port", address)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return fmt.Errorf("%q is not a loopback address; the demo lets anybody in and must not be reached by others", address)
	}
	return nil
}

// start runs the demo until ctx ends, or until the check is done.
func start(ctx context.Context, o options, check bool, stdout io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "serval-demo-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	o.dir = dir
	d, err := newDemo(ctx, o)
	defer func() {
		cancel()
		err = errors.Join(err, d.wait())
	}()
	if err != nil {
		return err
	}
	if err := d.synced(ctx); err != nil {
		return err
	}
	if check {
		fmt.Fprintf(stdout, "Serval runs at %s, ready after %.1f s: AWS, identity provider, bridge and worker on loopback.\n",
			d.url, time.Since(began).Seconds())
		return d.check(ctx, stdout)
	}
	d.welcome(stdout, time.Since(began))
	select {
	case <-ctx.Done():
		fmt.Fprintln(stdout, "\nStopping. Nothing of the demo is kept.")
		return nil
	case err := <-d.failed:
		return err
	}
}
