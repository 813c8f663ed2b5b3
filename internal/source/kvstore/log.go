package kvstore

import (
	"context"
	"log/slog"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// quiet is a zap logger for etcd's code. Warnings and errors, which etcd gives freely (each restart logs four), become
// debug messages: what matters of them comes back as an error. A fatal message is passed on, and panics instead of
// ending the process under the agent's feet, unless opts know better.
func quiet(log *slog.Logger, opts ...zap.Option) *zap.Logger {
	return zap.New(&slogCore{log: log}, append([]zap.Option{zap.WithFatalHook(zapcore.WriteThenPanic)}, opts...)...)
}

type slogCore struct {
	log    *slog.Logger
	fields []zapcore.Field
}

func (c *slogCore) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

func (c *slogCore) With(f []zapcore.Field) zapcore.Core {
	return &slogCore{log: c.log, fields: append(append([]zapcore.Field(nil), c.fields...), f...)}
}

func (c *slogCore) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if c.Enabled(e.Level) {
		return ce.AddCore(e, c)
	}
	return ce
}

func (c *slogCore) Write(e zapcore.Entry, fields []zapcore.Field) error {
	level := slog.LevelDebug
	if e.Level > zapcore.ErrorLevel {
		level = slog.LevelError
	}
	ctx := context.Background()
	if !c.log.Enabled(ctx, level) {
		return nil
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field(nil), c.fields...), fields...) {
		f.AddTo(enc)
	}
	c.log.LogAttrs(ctx, level, "etcd: "+e.Message, slog.Any("etcd", enc.Fields))
	return nil
}

func (c *slogCore) Sync() error { return nil }
