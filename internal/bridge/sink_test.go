package bridge

import (
	"bufio"
	"bytes"
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// who reads the log may stop reading: nobody waits for that, what does not
// fit is counted, and once it is read again the log goes on.
func TestBlockedLogBlocksNobody(t *testing.T) {
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	log, sink := NewLog(in, zapcore.InfoLevel)
	const lines = 20_000
	began := time.Now()
	for i := range lines {
		log.Info("a line of the log", zap.Int("i", i), zap.String("text", strings.Repeat("x", 100)))
	}
	if took := time.Since(began); took > time.Minute { // nobody reads, so whoever waited would wait for ever
		t.Errorf("%d lines to a blocked pipe took %s", lines, took)
	}
	if sink.Dropped() == 0 {
		t.Error("nothing was dropped")
	}
	if began = time.Now(); sink.Sync() != nil || time.Since(began) > time.Minute {
		t.Errorf("the last word waited %s for a blocked pipe", time.Since(began))
	}
	read := make(chan int)
	go func() {
		n := 0
		text := bufio.NewScanner(out)
		for text.Scan() {
			if n++; strings.Contains(text.Text(), "the last word") {
				break
			}
		}
		read <- n
	}()
	for sink.Sync(); ; time.Sleep(10 * time.Millisecond) {
		before := sink.Dropped()
		log.Info("the last word")
		if sink.Dropped() == before {
			break
		}
	}
	n := <-read
	if dropped := sink.Dropped(); int64(n) < lines-dropped {
		t.Errorf("%d lines were read and %d dropped of %d", n, dropped, lines)
	}
	in.Close()
}

// What was logged before the end is out when the log is synced.
func TestSinkSyncs(t *testing.T) {
	var text strings.Builder
	log, _ := NewLog(&text, zapcore.InfoLevel)
	for range 100 {
		log.Info("one")
		if err := log.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	if n := strings.Count(text.String(), `"msg":"one"`); n != 100 {
		t.Errorf("%d lines are out, want 100", n)
	}
}

// Whoever may change the level silences no alarm: errors are logged at any.
func TestErrorsAreLoggedAtAnyLevel(t *testing.T) {
	for _, level := range []zapcore.Level{zapcore.InfoLevel, zapcore.ErrorLevel, zapcore.FatalLevel, zapcore.InvalidLevel} {
		var text bytes.Buffer
		log, _ := NewLog(&text, level)
		log.Error("alarm")
		log.Debug("detail")
		if err := log.Sync(); err != nil {
			t.Fatal(err)
		}
		if got := text.String(); !strings.Contains(got, "alarm") || strings.Contains(got, "detail") {
			t.Errorf("at %s the log has %q, want the error and no more", level, got)
		}
	}
}
