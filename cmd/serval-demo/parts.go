package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
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
	address      string
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
	bridges, err := p.bridges()
	if err != nil {
		return err
	}
	serving := make(chan struct{}, len(bridges))
	for _, address := range bridges {
		p.run("bridge", func() error { return bridge.Run(ctx, p.bridge(address, file, log, serving)) })
	}
	for range bridges {
		select {
		case <-serving:
		case err := <-p.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
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

// bridge returns the settings of one bridge in this process.
func (p *parts) bridge(address string, file bridge.File, log *zap.Logger, serving chan<- struct{}) bridge.Config {
	return bridge.Config{
		Listen: address, AdminListen: "127.0.0.1:0", PublicURL: p.url,
		OIDC:   login.Config{Issuer: p.issuer, ClientID: clientID, ClientSecret: p.clientSecret},
		Secret: p.secret, ExternalIDSecret: p.externalIDs, DatabaseURL: p.database, TrustedAccount: hubAccount,
		STSEndpoint: p.aws, SigninEndpoint: p.aws, File: file, FilePath: p.configFile, Version: "demo", Log: log.Named("bridge"), DrainTime: 2 * time.Second,
		Serving: func(pages, _ net.Addr) {
			if p.balancer != nil {
				p.balancer.add(pages.String())
			}
			serving <- struct{}{}
		},
	}
}

// bridges returns where the bridges are to listen: at the demo's own address, or
// anywhere behind the balancer.
func (p *parts) bridges() (addresses []string, err error) {
	if p.balancer == nil {
		return []string{p.address}, nil
	}
	for range p.replicas {
		address := "127.0.0.1:0"
		if p.processes { // which do not say where they listen
			l, err := net.Listen("tcp", address)
			if err != nil {
				return nil, err
			}
			address = l.Addr().String()
			if err := l.Close(); err != nil {
				return nil, err
			}
			p.balancer.add(address)
		}
		addresses = append(addresses, address)
	}
	return addresses, nil
}

// startProcesses runs the real programs, found on the PATH, with their settings
// in the environment as a cluster would give them.
func (p *parts) startProcesses(ctx context.Context) error {
	bridges, err := p.bridges()
	if err != nil {
		return err
	}
	for _, address := range bridges {
		if err := p.startBridge(ctx, address); err != nil {
			return err
		}
	}
	if err := p.reachable(ctx); err != nil {
		return err
	}
	k := p.keys()
	return p.process(ctx, "serval-worker", []string{"run"}, []string{
		"SERVAL_UPSTREAM_URL=" + p.url, "SERVAL_UPSTREAM_TOKEN_FILE=" + p.tokenFile, "SERVAL_ADMIN_LISTEN=127.0.0.1:0",
		"SERVAL_NO_LEASE=true",
		"SERVAL_STS_ENDPOINT=" + p.aws, "SERVAL_IAM_ENDPOINT=" + p.aws, "SERVAL_SYNC_INTERVAL=" + syncInterval.String(), "SERVAL_SYNC_OFFSET=" + syncOffset().String(),
		"SERVAL_DELTA_INTERVAL=" + deltaInterval.String(), "SERVAL_ORGANIZATIONS_ENDPOINT=" + p.aws,
		"AWS_ACCESS_KEY_ID=" + k.AccessKeyID, "AWS_SECRET_ACCESS_KEY=" + k.SecretAccessKey, "AWS_SESSION_TOKEN=" + k.SessionToken,
	})
}

// startBridge runs serval-bridge at address.
func (p *parts) startBridge(ctx context.Context, address string) error {
	return p.process(ctx, "serval-bridge", []string{"serve"}, []string{
		"SERVAL_LISTEN=" + address, "SERVAL_ADMIN_LISTEN=127.0.0.1:0", "SERVAL_PUBLIC_URL=" + p.url,
		"SERVAL_OIDC_ISSUER=" + p.issuer, "SERVAL_OIDC_CLIENT_ID=" + clientID, "SERVAL_OIDC_CLIENT_SECRET=" + p.clientSecret.Reveal(),
		"SERVAL_SECRET=" + p.secret.Reveal(), "SERVAL_EXTERNAL_ID_SECRET=" + p.externalIDs.Reveal(),
		"SERVAL_DATABASE_URL=" + p.database.Reveal(), "SERVAL_CONFIG=" + p.configFile, "SERVAL_TRUSTED_ACCOUNT=" + hubAccount,
		"SERVAL_STS_ENDPOINT=" + p.aws, "SERVAL_SIGNIN_ENDPOINT=" + p.aws, "SERVAL_DRAIN_DELAY=0s",
	})
}

// process runs a program until ctx ends, and then asks it to stop.
func (p *parts) process(ctx context.Context, name string, args, environ []string) error {
	c := exec.CommandContext(ctx, name, args...)
	c.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + p.dir}, environ...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 30 * time.Second
	if p.verbose {
		c.Stderr = p.stderr
	}
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

// reachable waits until the bridge answers.
func (p *parts) reachable(ctx context.Context) error {
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/", nil)
		if err != nil {
			return err
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case err := <-p.failed:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
