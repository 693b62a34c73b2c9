package probe

import (
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Errors logs what level does, and errors whatever it is: some alarms stand in the
// log alone, such as a broken audit chain, and whoever may change the level may not
// silence them.
func Errors(level zapcore.LevelEnabler) zapcore.LevelEnabler {
	return zap.LevelEnablerFunc(func(l zapcore.Level) bool { return l >= zapcore.ErrorLevel || level.Enabled(l) })
}
