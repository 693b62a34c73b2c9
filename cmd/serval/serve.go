package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/shell"
	"github.com/serval-bridge/serval-bridge/internal/wallet"
)

func (p *program) serveCommand() *cobra.Command {
	var ask wallet.Ask
	var kind string
	var port int
	c := p.command("serve ROLE", "Serve credentials on loopback, for tools that fetch them anew by themselves", cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		k, err := p.shellKind(kind)
		if err != nil {
			return err
		}
		// What would fail later fails here, where somebody sees it.
		if _, err := p.credentials(c.Context(), roleArg(args), &ask); err != nil {
			return err
		}
		s, err := p.newServer(ask, port)
		if err != nil {
			return err
		}
		defer s.Close()
		if _, err := fmt.Fprint(p.stdout, shell.Lines(k, s.variables())); err != nil {
			return err
		}
		p.note("serving %s until Ctrl-C.", ask.Role)
		<-c.Context().Done()
		return nil
	})
	c.Long = `Prints the variables by which AWS's tools find it, and serves until it is stopped. It speaks the protocol that containers get
their credentials by, on a port of 127.0.0.1, to whoever has the token. To run one command with it: serval exec --serve.`
	sessionFlags(c, &ask)
	shellFlag(c, &kind)
	c.Flags().IntVar(&port, "port", 0, "port of 127.0.0.1; 0 for any that is free")
	c.ValidArgsFunction = p.completeRole
	return c
}

// A server hands out credentials of one role by the protocol of AWS's container
// credentials provider.
type server struct {
	program  *program
	ask      wallet.Ask
	token    serval.Secret
	listener net.Listener
	http     *http.Server
	served   chan struct{}
	turn     chan struct{} // who asks the bridge, one after the other
}

// newServer serves until it is closed.
func (p *program) newServer(ask wallet.Ask, port int) (*server, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(port))
	if err != nil {
		return nil, fmt.Errorf("serving credentials: %w", err)
	}
	s := &server{program: p, ask: ask, token: serval.NewSecret(rand.Text()), listener: l, served: make(chan struct{}), turn: make(chan struct{}, 1)}
	s.http = &http.Server{Handler: s, ReadHeaderTimeout: 5 * time.Second, MaxHeaderBytes: 16 << 10}
	go func() {
		defer close(s.served)
		_ = s.http.Serve(l) // until Close
	}()
	return s, nil
}

// Close stops serving.
func (s *server) Close() {
	_ = s.http.Close()
	<-s.served
}

// variables are how tools find it.
func (s *server) variables() [][2]string {
	return [][2]string{
		{"AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://" + s.listener.Addr().String() + "/"},
		{"AWS_CONTAINER_AUTHORIZATION_TOKEN", s.token.Reveal()},
	}
}

// ServeHTTP answers whoever has the token. A page in a browser has none, and comes
// under another host's name where it found the port all the same.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	switch {
	case r.Host != s.listener.Addr().String():
		refuse(w, http.StatusMisdirectedRequest, "Misdirected", "This is not the address that serval serves at.")
		return
	case !s.token.Equal(serval.NewSecret(r.Header.Get("Authorization"))):
		refuse(w, http.StatusUnauthorized, "Unauthorized", "The token is missing or wrong.")
		return
	case r.Method != http.MethodGet || r.URL.Path != "/":
		refuse(w, http.StatusNotFound, "NotFound", "Credentials are at /.")
		return
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-r.Context().Done():
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), stumbledTime)
	defer cancel()
	held, err := s.program.wallet().Credentials(ctx, s.ask)
	if err != nil {
		if r.Context().Err() == nil {
			s.program.note("%s", err)
		}
		status := http.StatusServiceUnavailable // SDKs try again
		if code := exitCode(ctx, err); code == exitNoAccess || code == exitLogin || code == exitAWS || code == exitNotFound {
			status = http.StatusForbidden
		}
		refuse(w, status, "NoCredentials", err.Error())
		return
	}
	for _, note := range held.Notes {
		s.program.note("%s", cell(note))
	}
	c := held.Process()
	_ = json.NewEncoder(w).Encode(map[string]string{
		"RoleArn": s.ask.Role.String(), "AccessKeyId": c.AccessKeyID, "SecretAccessKey": c.SecretAccessKey, "Token": c.SessionToken, "Expiration": c.Expiration,
	}) // whoever does not read it, does not
}

func refuse(w http.ResponseWriter, status int, code, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"code": code, "message": strings.ToValidUTF8(message, "�")})
}
