package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/idptest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
)

// A demo is a running Serval with everything around it.
type demo struct {
	url      string // of the bridge
	aws      string // endpoint of every AWS service
	cloud    *awstest.Cloud
	issuer   string // of the identity provider
	database serval.Secret
	secret   serval.Secret
	balancer balancer // before the bridges

	group  *errgroup.Group
	failed chan error // the first part that ended by itself
}

// options say how to run a demo.
type options struct {
	listen      string        // of the bridge
	dir         string        // for what it keeps while it runs
	verbose     bool          // show the logs
	processes   bool          // run the real programs instead of their parts in this process
	replicas    int           // bridges behind the balancer, each request to the next; 0: one
	databaseURL serval.Secret // of all bridges; empty: a SQLite file
	stderr      io.Writer
}

// newDemo starts everything and returns once the bridge can be used. In the
// end, and after an error too, cancel ctx and wait.
func newDemo(ctx context.Context, o options) (*demo, error) {
	d := &demo{failed: make(chan error, 1), group: new(errgroup.Group)}

	// The demo's address comes first: the identity provider has to know it. A balancer
	// listens there from now on, also before a single bridge, so that nobody takes it
	// meanwhile; bridges listen wherever there is room.
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return d, fmt.Errorf("%w; set SERVAL_DEMO_LISTEN to another address, such as 127.0.0.1:8090", err)
	}
	d.serveOn(ctx, l, d.balancer.handler())
	d.url = "http://" + l.Addr().String()
	clientSecret := serval.NewSecret(rand.Text())
	provider := idptest.New(idptest.Options{
		ClientID: clientID, ClientSecret: clientSecret.Reveal(), People: people(),
		RedirectURIs: []string{d.url + "/oidc/auth/callback"},
	})
	if d.issuer, err = d.serve(ctx, provider); err != nil {
		return d, err
	}
	provider.SetIssuer(d.issuer)

	externalIDs := serval.NewSecret(rand.Text() + rand.Text())
	d.cloud = awstest.New(awstest.Options{})
	build(d.cloud, d.issuer, serval.ExternalID(externalIDs, "demo"), time.Now())
	if d.aws, err = d.serve(ctx, d.cloud); err != nil {
		return d, err
	}

	token := serval.NewSecret(rand.Text() + rand.Text())
	tokenFile := filepath.Join(o.dir, "worker-token")
	if err := os.WriteFile(tokenFile, []byte(token.Reveal()), 0o600); err != nil {
		return d, err
	}
	configFile := filepath.Join(o.dir, "serval.yaml")
	if err := os.WriteFile(configFile, []byte(configuration(tokenFile)), 0o600); err != nil {
		return d, err
	}
	if d.database = o.databaseURL; d.database.Empty() {
		d.database = serval.NewSecret("sqlite://" + filepath.ToSlash(filepath.Join(o.dir, "serval.db")))
	}
	d.secret = serval.NewSecret(rand.Text() + rand.Text())

	parts := parts{
		demo: d, options: o, clientSecret: clientSecret, externalIDs: externalIDs,
		token: token, tokenFile: tokenFile, configFile: configFile,
		// What EKS Pod Identity would give the worker, session tags included.
		keys: func() awstest.Keys { return d.cloud.Account(hubAccount).PodIdentity("serval-worker", time.Now()) },
	}
	if o.processes {
		return d, parts.startProcesses(ctx)
	}
	return d, parts.start(ctx)
}

// A balancer sends each request to the next of the bridges, without any memory of
// who was where before.
type balancer struct {
	mu      sync.Mutex
	targets []*url.URL
	turn    int
}

func (b *balancer) add(address string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = append(b.targets, &url.URL{Scheme: "http", Host: address})
}

func (b *balancer) next() *url.URL {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.targets) == 0 {
		return &url.URL{}
	}
	b.turn++
	return b.targets[b.turn%len(b.targets)]
}

func (b *balancer) handler() http.Handler {
	return &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(b.next())
			r.Out.Host = r.In.Host
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
		ErrorLog:     log.New(io.Discard, "", 0), // of bridges that end in the middle of an answer, with the demo
	}
}

// serve serves h on a free port of loopback until ctx ends, and returns its
// origin.
func (d *demo) serve(ctx context.Context, h http.Handler) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	d.serveOn(ctx, l, h)
	return "http://" + l.Addr().String(), nil
}

func (d *demo) serveOn(ctx context.Context, l net.Listener, h http.Handler) {
	s := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	d.run("local server", func() error {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	d.group.Go(func() error {
		<-ctx.Done()
		return s.Close()
	})
}

// run runs a part of the demo. An error of it ends the demo.
func (d *demo) run(name string, f func() error) {
	d.group.Go(func() error {
		err := f()
		if err != nil {
			err = fmt.Errorf("%s: %w", name, err)
			select {
			case d.failed <- err:
			default:
			}
		}
		return err
	})
}

// wait waits until every part has ended.
func (d *demo) wait() error { return d.group.Wait() }

// synced waits until the worker has brought the roles of every account.
func (d *demo) synced(ctx context.Context) error {
	deadline := time.After(time.Minute)
	for {
		missing, err := d.missing(ctx)
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case err := <-d.failed:
			return err
		case <-deadline:
			return fmt.Errorf("the worker has not read %s within a minute; run with -v to see why", strings.Join(missing, ", "))
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// missing returns the accounts whose roles have not come yet.
func (d *demo) missing(ctx context.Context) (names []string, err error) {
	s, err := store.Open(ctx, store.Config{URL: d.database, Chain: serval.NewChain(d.secret), ReadOnly: true})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	err = s.Read(ctx, func(v *store.View) error {
		accounts, err := v.Accounts()
		for _, a := range accounts {
			if a.AcceptedGeneration == 0 {
				names = append(names, a.Name)
			}
		}
		return err
	})
	return names, err
}

// welcome says what there is and what to do with it.
func (d *demo) welcome(w io.Writer, took time.Duration) {
	fmt.Fprintf(w, `
Serval runs (ready in %.1f s). Open

    %[2]s

and sign in as the requester: you see the roles that are tagged "serval" in four AWS accounts; those of workshop have the mistakes that trust
policies often have, and say so. Start a sandbox role at once; request prod-readonly, then sign in as the approver in
another browser (or a private window) and approve it. The admin sees accounts and the audit log. Credentials that you
are given work against the demo's own AWS, which plays IAM and STS and nothing else; paste them into a shell and, with
the AWS CLI,

    AWS_ENDPOINT_URL=%[3]s AWS_DEFAULT_REGION=us-west-1 aws sts get-caller-identity

The same from a terminal (build the client into bin/ with: make build):

    bin/serval login %[2]s
    bin/serval request sandbox/sandbox-readonly --for 1h
    AWS_ENDPOINT_URL=%[3]s bin/serval exec --region us-west-1 sandbox/sandbox-readonly -- aws sts get-caller-identity

What runs: bridge %[2]s, identity provider %[4]s, AWS %[3]s, a worker. All on loopback, nothing is kept.
Stop with Ctrl-C. The whole story by itself: make demo-check
`, took.Seconds(), d.url, d.aws, d.issuer)
}
