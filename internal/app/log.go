package app

import (
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/hypha-net/hypha/internal/config"
)

// NewLogger makes the agent's logger. level can be changed while it is in use. closer ends the log file.
func NewLogger(cfg *config.Agent) (log *slog.Logger, level *slog.LevelVar, closer func(), err error) {
	var w io.Writer = os.Stderr
	closer = func() {}
	if cfg.LogFile != "" {
		f, err := os.OpenFile(cfg.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o640)
		if err != nil {
			return nil, nil, nil, fmt.Errorf("option log-file: %w", err)
		}
		w, closer = f, func() { f.Close() }
	}
	level = new(slog.LevelVar)
	setLevel(level, cfg.Debug)
	opts := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts)), level, closer, nil
	}
	return slog.New(slog.NewTextHandler(w, opts)), level, closer, nil
}

func setLevel(l *slog.LevelVar, debug bool) {
	l.Set(slog.LevelInfo)
	if debug {
		l.Set(slog.LevelDebug)
	}
}
