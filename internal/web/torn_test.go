package web_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/serval-bridge/serval-bridge/internal/serval"
	"github.com/serval-bridge/serval-bridge/internal/store"
	"github.com/serval-bridge/serval-bridge/internal/web"
	"github.com/serval-bridge/serval-bridge/internal/wire"
)

// a worker that is killed in the middle of a push, at whatever point, leaves
// what there was; the next sync is taken as if nothing had been.
func TestTornPushes(t *testing.T) {
	w := newWorld(t)
	hub := w.worker(hubToken)
	at := "/api/v1/upstream/accounts/" + prod
	names := func() string {
		var names []string
		err := w.store.Read(t.Context(), func(v *store.View) error {
			roles, err := v.Roles(prod)
			for _, r := range roles {
				names = append(names, r.Name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(names) > 10 {
			return fmt.Sprintf("%d roles, from %s to %s", len(names), names[0], names[len(names)-1])
		}
		return strings.Join(names, " ")
	}
	w.push(w.inventory)
	before := names()
	// More than are staged at a time, so that some of a push is in the database
	// before its end.
	large := func(generation int64) serval.Inventory {
		inv := w.inventory(generation)
		one := inv.Roles[0]
		for i := range 600 {
			r := one
			r.Name = fmt.Sprintf("torn-%03d", i)
			r.ARN, r.RoleID, r.Path = fmt.Sprintf("arn:aws:iam::%s:role/%s", prod, r.Name), fmt.Sprintf("AROATORN%03d", i), "/"
			inv.Roles = append(inv.Roles, r)
		}
		return inv
	}
	delta := func(generation int64) serval.Delta {
		inv := large(generation)
		d := serval.Delta{
			AccountID: prod, Generation: generation, StartedAt: inv.StartedAt, FinishedAt: inv.FinishedAt, Complete: true, ReadBy: serval.ByRoles,
			Roles:   inv.Roles[2:],
			Removed: []serval.Removal{{RoleID: inv.Roles[0].RoleID, ARN: inv.Roles[0].ARN, Reason: serval.RemovedDeleted}},
		}
		d.Normalize()
		return d
	}
	body := func(generation int64, what string) []byte {
		var text bytes.Buffer
		err := wire.WriteDelta(&text, delta(generation))
		if what == "inventory" {
			text.Reset()
			inv := large(generation)
			inv.Normalize()
			err = wire.WriteInventory(&text, inv)
		}
		if err != nil {
			t.Fatal(err)
		}
		return text.Bytes()
	}
	rnd := rand.New(rand.NewPCG(23, 23))
	for i := range 100 {
		var sync wire.Sync
		hub.json("POST", at+"/syncs", wire.OpenSync{Worker: "w1"}, 200, &sync)
		what := []string{"inventory", "delta"}[i%2]
		text := body(sync.Generation, what)
		encoding := ""
		if i%3 == 0 {
			var zipped bytes.Buffer
			z := gzip.NewWriter(&zipped)
			z.Write(text)
			z.Close()
			text, encoding = zipped.Bytes(), "Content-Encoding: gzip\r\n"
		}
		conn, err := net.Dial("tcp", strings.TrimPrefix(w.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		// The worker says how much comes, or sends chunks; either way the end is missing.
		length := fmt.Sprintf("Content-Length: %d\r\n", len(text))
		chunk := ""
		if i%4 < 2 {
			length, chunk = "Transfer-Encoding: chunked\r\n", fmt.Sprintf("%x\r\n", len(text))
		}
		fmt.Fprintf(conn, "PUT %s/%s HTTP/1.1\r\nHost: %s\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n%s%s\r\n%s",
			at, what, strings.TrimPrefix(w.url, "http://"), hubToken, encoding, length, chunk)
		most := len(text)
		if chunk == "" {
			most-- // with all of it, it would be whole
		}
		cut := rnd.IntN(most + 1)
		conn.Write(text[:cut])
		// Half of them are killed, half lose the network in one direction only.
		if i%2 == 0 {
			conn.(*net.TCPConn).SetLinger(0)
		} else {
			conn.(*net.TCPConn).CloseWrite()
			conn.SetReadDeadline(time.Now().Add(10 * time.Second))
			io.Copy(io.Discard, conn)
		}
		conn.Close()
		if got := names(); got != before {
			t.Fatalf("cut after %d of %d bytes of the %s there are %s, want %s", cut, len(text), what, got, before)
		}
	}
	// The next start of the worker.
	var sync wire.Sync
	hub.json("POST", at+"/syncs", wire.OpenSync{Worker: "w1"}, 200, &sync)
	text := body(sync.Generation, "inventory")
	for until := time.Now().Add(time.Minute); ; {
		res, answer := hub.do("PUT", at+"/inventory", io.Reader(bytes.NewReader(text)))
		if res.StatusCode == http.StatusTooManyRequests && time.Now().Before(until) { // the last of the torn ones is being dropped
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if res.StatusCode != 200 {
			t.Fatalf("the next sync answered %d: %s", res.StatusCode, answer)
		}
		break
	}
	if got, want := names(), "602 roles, from dev-admin to torn-599"; cmp.Diff(want, got) != "" {
		t.Errorf("after the next sync there are %s, want %s", got, want)
	}
	err := w.store.Read(t.Context(), func(v *store.View) error { _, err := v.VerifyChain(store.Head{}); return err })
	if err != nil {
		t.Errorf("the audit chain: %v", err)
	}
}

// A worker's token that is taken away while it pushes, or that loses the account, has
// no power left at the end of the push.
func TestTokenTakenAwayWhilePushing(t *testing.T) {
	tokens := func(list []web.UpstreamToken) []web.UpstreamToken { return list }
	w := newWorld(t, func(c *web.Config) {
		all := c.UpstreamTokens
		c.UpstreamTokens = func() []web.UpstreamToken { return tokens(all()) }
	})
	for name, taken := range map[string]func(list []web.UpstreamToken) []web.UpstreamToken{
		"the token is gone": func(list []web.UpstreamToken) []web.UpstreamToken { return list[1:] },
		"the account is another's": func(list []web.UpstreamToken) []web.UpstreamToken {
			list[0].Accounts = []string{dev}
			return list
		},
	} {
		worker := w.worker(hubToken)
		var opened wire.Sync
		worker.json("POST", "/api/v1/upstream/accounts/"+prod+"/syncs", wire.OpenSync{Worker: "w1"}, 200, &opened)
		var text bytes.Buffer
		if err := wire.WriteInventory(&text, w.inventory(opened.Generation)); err != nil {
			t.Fatal(err)
		}
		asked := 0
		tokens = func(list []web.UpstreamToken) []web.UpstreamToken {
			if asked++; asked == 1 { // when the push begins
				return list
			}
			return taken(list)
		}
		worker.json("PUT", "/api/v1/upstream/accounts/"+prod+"/inventory", json.RawMessage(text.Bytes()), 401, nil)
		tokens = func(list []web.UpstreamToken) []web.UpstreamToken { return list }
		var events wire.Events
		w.as("aud").json("GET", "/api/v1/audit?action=inventory.accept&outcome=refused&page_size=1", nil, 200, &events)
		if len(events.Events) != 1 || !strings.Contains(events.Events[0].Reason, "taken away") {
			t.Errorf("%s: the audit log has %+v", name, events.Events)
		}
		err := w.store.Read(t.Context(), func(v *store.View) error {
			if roles, err := v.Roles(prod); err != nil || len(roles) != 0 {
				t.Errorf("%s: %d roles were taken in, %v", name, len(roles), err)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
