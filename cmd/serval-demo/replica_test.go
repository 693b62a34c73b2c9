package main

import (
	"bytes"
	"context"
	"flag"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/serval-bridge/serval-bridge/internal/pgtest"
	"github.com/serval-bridge/serval-bridge/internal/serval"
)

var (
	stories = flag.Int("stories", 2, "how often the story is told to replicas")
	atATime = flag.Int("at-a-time", 2, "how many of them at a time")
)

// two bridges on one PostgreSQL, behind a balancer that sends each request to
// the other one, tell the whole story: a sign-in that is begun at one comes back
// at the other, a worker's polls are woken by what happened there, and all that
// is to happen once happens once.
func TestReplicas(t *testing.T) {
	var running errgroup.Group
	var held atomic.Int64
	running.SetLimit(*atATime)
	databases := make([]string, *stories)
	for i := range databases {
		databases[i] = pgtest.URL(t)
	}
	for i, database := range databases {
		running.Go(func() error {
			var out bytes.Buffer
			o := options{listen: "127.0.0.1:0", replicas: 2, databaseURL: serval.NewSecret(database), stderr: &out}
			err := start(context.WithoutCancel(t.Context()), o, true, &out)
			if err != nil || !strings.Contains(out.String(), "the audit chain holds") {
				t.Errorf("story %d: %v\n%s", i+1, err, out.String())
				return nil
			}
			held.Add(1)
			return nil
		})
	}
	running.Wait()
	t.Logf("%d stories of %d held", held.Load(), *stories)
}
