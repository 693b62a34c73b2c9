package bridge

import (
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

// a panic in the background ends its turn, is told, and the next turn comes.
func TestPanicInTheBackground(t *testing.T) {
	core, logs := observer.New(zapcore.ErrorLevel)
	c := Config{Log: zap.New(core)}
	turns := 0
	for range 3 {
		c.guard("sweep", func() {
			turns++
			panic("broken")
		})
	}
	if turns != 3 || logs.FilterMessage("a turn in the background panicked").Len() != 3 {
		t.Errorf("%d turns, %d told; want 3 of each", turns, logs.Len())
	}
}
