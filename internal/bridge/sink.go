package bridge

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/serval-bridge/serval-bridge/internal/probe"
)

// The bounds of what waits to be logged.
const (
	maxWaitingLines = 4096
	maxWaitingBytes = 1 << 20
	syncPatience    = time.Second
)

// A Sink writes the log in the background, so that nobody waits for whoever reads
// it: lines that come while as many as there is room for wait are dropped, and
// counted. It is a zapcore.WriteSyncer.
type Sink struct {
	to      io.Writer
	dropped atomic.Int64

	mu      sync.Mutex
	waiting [][]byte
	bytes   int
	wake    chan struct{}
	done    chan struct{} // closed when a Sync's last line is written
	writing bool
}

// NewLog returns a log of JSON lines at a level, and of errors at any, that writes
// through a sink.
func NewLog(to io.Writer, level zapcore.LevelEnabler) (*zap.Logger, *Sink) {
	s := &Sink{to: to, wake: make(chan struct{}, 1)}
	go s.run()
	e := zap.NewProductionEncoderConfig()
	e.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	return zap.New(zapcore.NewCore(zapcore.NewJSONEncoder(e), s, probe.Errors(level)), zap.AddCaller(), zap.ErrorOutput(s)), s
}

// Dropped returns how many lines were dropped.
func (s *Sink) Dropped() int64 { return s.dropped.Load() }

// Write takes a line, and never waits.
func (s *Sink) Write(line []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.waiting) >= maxWaitingLines || s.bytes+len(line) > maxWaitingBytes {
		s.dropped.Add(1)
		return len(line), nil
	}
	s.waiting = append(s.waiting, bytes.Clone(line)) // the caller uses its own again
	s.bytes += len(line)
	select {
	case s.wake <- struct{}{}:
	default:
	}
	return len(line), nil
}

// run writes what waits, for as long as the process lives: the log is the last to
// end.
func (s *Sink) run() {
	for range s.wake {
		for {
			s.mu.Lock()
			lines := s.waiting
			s.waiting, s.bytes, s.writing = nil, 0, len(lines) > 0
			if !s.writing && s.done != nil {
				close(s.done)
				s.done = nil
			}
			s.mu.Unlock()
			if len(lines) == 0 {
				break
			}
			for _, line := range lines {
				s.to.Write(line) // there is nobody to tell
			}
		}
	}
}

// Sync waits until what was written before is out, for a second at most.
func (s *Sink) Sync() error {
	s.mu.Lock()
	if len(s.waiting) == 0 && !s.writing {
		s.mu.Unlock()
		return nil
	}
	if s.done == nil {
		s.done = make(chan struct{})
	}
	done := s.done
	s.mu.Unlock()
	select {
	case s.wake <- struct{}{}:
	default:
	}
	select {
	case <-done:
	case <-time.After(syncPatience):
	}
	return nil
}
