package main

import (
	"bytes"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Whoever may change the level silences no alarm: errors are logged at any.
func TestErrorsAreLoggedAtAnyLevel(t *testing.T) {
	level := zap.NewAtomicLevelAt(zapcore.FatalLevel)
	var text bytes.Buffer
	log := newLog(&text, level)
	log.Error("alarm")
	log.Warn("hint")
	if got := text.String(); !strings.Contains(got, "alarm") || strings.Contains(got, "hint") {
		t.Errorf("the log has %q, want the error and no more", got)
	}
}
