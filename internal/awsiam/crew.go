package awsiam

import "golang.org/x/sync/errgroup"

// A crew looks at the roles of one reading, several at once. How many there may
// be in all readings is bounded like the calls in flight, and each reading has its
// share: what waits for a turn needs memory too, and fifty accounts must not need
// fifty times that of one.
//
// One goroutine gives out the work; do, wait and leave are for it alone.
type crew struct {
	reader *Reader
	group  errgroup.Group
	busy   int
	done   chan struct{} // one for each that has finished
}

// ahead is how many roles are begun for each call in flight, so that none waits
// for a role's chain of calls.
const ahead = 4

func (r *Reader) newCrew() *crew {
	r.crews.Add(1)
	r.crowd(1)
	return &crew{reader: r, done: make(chan struct{}, ahead*r.config.Concurrency)}
}

// share is how many this reading may have at work. It changes with the number of
// readings.
func (c *crew) share() int {
	of := &c.reader.config
	return max(1, min(ahead*of.Concurrency, 2*of.Total/int(max(1, c.reader.crews.Load()))))
}

// do runs f, when there is room for it.
func (c *crew) do(f func() error) {
	for c.busy >= c.share() {
		<-c.done
		c.busy--
	}
	c.busy++
	c.group.Go(func() error {
		defer func() { c.done <- struct{}{} }()
		return f()
	})
}

// wait returns the first error, when all have finished.
func (c *crew) wait() error { return c.group.Wait() }

// leave gives the share back.
func (c *crew) leave() {
	c.reader.crews.Add(-1)
	c.reader.crowd(-1)
}

// crowd tells the process's thrift of the readings, where there is one.
func (r *Reader) crowd(n int) {
	if r.config.Thrifty {
		r.thrift.add(n, r.config.Total/r.config.Concurrency)
	}
}
