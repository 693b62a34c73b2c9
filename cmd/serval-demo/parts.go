package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"go.uber.org/zap"

	"github.com/serval-bridge/serval-bridge/internal/awsiam"
	"github.com/serval-bridge/serval-bridge/internal/awsorg"
	"github.com/serval-bridge/serval-bridge/internal/awstest"
	"github.com/serval-bridge/serval-bridge/internal/bridge"
	"github.com/serval-bridge/serval-bridge/internal/login"
	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/upstream"
	"github.com/serval-bridge/serval-bridge/internal/worker"
	"github.com/serval-bridge/serval-bridge/internal/workerd"
)

// parts are bridge and worker, with what they need.
type parts struct {
	*demo
	options
	clientSecret serval.Secret
	externalIDs  serval.Secret
	token        serval.Secret
	tokenFile    string
	configFile   string
	keys         func() awstest.Keys // the worker's AWS credentials
}

// start starts bridges and worker in this process, and returns once all bridges
// can be used.
func (p *parts) start(ctx context.Context) error {
	log := zap.NewNop()
	if p.verbose {
		var err error
		if log, err = zap.NewDevelopment(); err != nil {
			return err
		}
	}
	file, faults := bridge.ReadFile(p.configFile)
	if len(faults) > 0 {
		return fmt.Errorf("the demo's own configuration: %v", faults)
	}
	serving := make(chan string, p.bridges())
	for range p.bridges() {
		p.run("bridge", func() error { return bridge.Run(ctx, p.bridge(file, log, serving)) })
	}
	if err := p.balance(ctx, serving); err != nil {
		return err
	}
	p.run("worker", func() error {
		return workerd.Run(ctx, workerd.Config{
			Upstream: upstream.Config{BaseURL: p.url, Token: func() (serval.Secret, error) { return p.token, nil }},
			AWS: awsiam.Config{
				STSEndpoint: p.aws, IAMEndpoint: p.aws,
				Credentials: aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
					k := p.keys()
					return aws.Credentials{
						AccessKeyID: k.AccessKeyID, SecretAccessKey: k.SecretAccessKey, SessionToken: k.SessionToken,
						CanExpire: true, Expires: k.Expiration,
					}, nil
				})),
			},
			Organization: awsorg.Config{OrganizationsEndpoint: p.aws, IAMEndpoint: p.aws},
			Name:         "demo", Schedule: worker.Schedule{Interval: syncInterval, Offset: syncOffset()}, DeltaInterval: deltaInterval, Log: log.Named("worker"),
		})
	})
	return nil
}

// bridge returns the settings of one bridge in this process, which says where it is
// to be used.
func (p *parts) bridge(file bridge.File, log *zap.Logger, serving chan<- string) bridge.Config {
	return bridge.Config{
		Listen: anywhere, AdminListen: anywhere, PublicURL: p.url,
		OIDC:   login.Config{Issuer: p.issuer, ClientID: clientID, ClientSecret: p.clientSecret},
		Secret: p.secret, ExternalIDSecret: p.externalIDs, DatabaseURL: p.database, TrustedAccount: hubAccount,
		STSEndpoint: p.aws, SigninEndpoint: p.aws, File: file, FilePath: p.configFile, Version: "demo", Log: log.Named("bridge"), DrainTime: 2 * time.Second,
		Serving: func(pages, _ net.Addr) { serving <- pages.String() },
	}
}

// anywhere is an address of loopback with a port that is free.
const anywhere = "127.0.0.1:0"

// bridges returns how many there are.
func (p *parts) bridges() int { return max(p.replicas, 1) }

// balance has the balancer send requests to every bridge, once it says where it can
// be used.
func (p *parts) balance(ctx context.Context, serving <-chan string) error {
	deadline := time.After(patience)
	for range p.bridges() {
		select {
		case address := <-serving:
			p.balancer.add(address)
		case err := <-p.failed:
			return err
		case <-deadline:
			return fmt.Errorf("a bridge does not serve after %s; run with -v to see why", patience)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// startProcesses runs the real programs, found on the PATH, with their settings
// in the environment as a cluster would give them.
func (p *parts) startProcesses(ctx context.Context) error {
	serving := make(chan string, p.bridges())
	for range p.bridges() {
		if err := p.startBridge(ctx, serving); err != nil {
			return err
		}
	}
	if err := p.balance(ctx, serving); err != nil {
		return err
	}
	k := p.keys()
	return p.process(ctx, p.log(), "serval-worker", []string{"run"}, []string{
		"SERVAL_UPSTREAM_URL=" + p.url, "SERVAL_UPSTREAM_TOKEN_FILE=" + p.tokenFile, "SERVAL_ADMIN_LISTEN=" + anywhere,
		"SERVAL_NO_LEASE=true",
		"SERVAL_STS_ENDPOINT=" + p.aws, "SERVAL_IAM_ENDPOINT=" + p.aws, "SERVAL_SYNC_INTERVAL=" + syncInterval.String(), "SERVAL_SYNC_OFFSET=" + syncOffset().String(),
		"SERVAL_DELTA_INTERVAL=" + deltaInterval.String(), "SERVAL_ORGANIZATIONS_ENDPOINT=" + p.aws,
		"AWS_ACCESS_KEY_ID=" + k.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + k.SecretAccessKey, "AWS_SESSION_TOKEN=" + k.SessionToken,
	})
}

// startBridge runs serval-bridge, which says where it is to be used.
func (p *parts) startBridge(ctx context.Context, serving chan<- string) error {
	return p.process(ctx, &listener{serving: serving, log: p.log()}, "serval-bridge", []string{"serve"}, []string{
		"SERVAL_LISTEN=" + anywhere, "SERVAL_ADMIN_LISTEN=" + anywhere, "SERVAL_PUBLIC_URL=" + p.url,
		"SERVAL_OIDC_ISSUER=" + p.issuer, "SERVAL_OIDC_CLIENT_ID=" + clientID, "SERVAL_OIDC_CLIENT_SECRET=" + p.clientSecret.Reveal(),
		"SERVAL_SECRET=" + p.secret.Reveal(), "SERVAL_EXTERNAL_ID_SECRET=" + p.externalIDs.Reveal(),
		"SERVAL_DATABASE_URL=" + p.database.Reveal(), "SERVAL_CONFIG=" + p.configFile, "SERVAL_TRUSTED_ACCOUNT=" + hubAccount,
		"SERVAL_STS_ENDPOINT=" + p.aws, "SERVAL_SIGNIN_ENDPOINT=" + p.aws, "SERVAL_DRAIN_DELAY=0s",
	})
}

// log returns where the logs of processes go.
func (p *parts) log() io.Writer {
	if p.verbose {
		return p.stderr
	}
	return io.Discard
}

// A listener reads a bridge's log for where that listens, and hands it on.
type listener struct {
	serving chan<- string // nil once it was told
	line    []byte        // the last one until then, that has not ended yet
	log     io.Writer
}

// Write takes a part of the log.
func (l *listener) Write(text []byte) (int, error) {
	for rest := text; l.serving != nil && len(rest) > 0; {
		part, after, ended := bytes.Cut(rest, []byte("\n"))
		l.line, rest = append(l.line, part...), after
		if !ended {
			break
		}
		var entry struct{ Msg, Listen string }
		if json.Unmarshal(l.line, &entry) == nil && entry.Msg == "serving" {
			l.serving <- entry.Listen
			l.serving = nil
		}
		l.line = l.line[:0]
	}
	return l.log.Write(text)
}

// process runs a program until ctx ends, and then asks it to stop.
func (p *parts) process(ctx context.Context, log io.Writer, name string, args, environ []string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir}, environ...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 30 * time.Second
	c.Stderr = log
	if err := c.Start(); err != nil {
		return fmt.Errorf("starting %s (build it with: make build, and put bin/ into the PATH): %w", name, err)
	}
	p.run(name, func() error {
		err := c.Wait()
		if ctx.Err() != nil && c.ProcessState.Success() {
			return nil // it was asked to stop, and did so in order
		}
		if err == nil {
			err = errors.New("it ended by itself")
		}
		return err
	})
	return nil
}
