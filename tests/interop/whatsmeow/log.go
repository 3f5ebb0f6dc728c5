package main

import (
	"fmt"
	"os"
	"time"

	waLog "go.mau.fi/whatsmeow/util/log"
)

var levels = map[string]int{"debug": 0, "info": 1, "warn": 2, "error": 3}

// stderrLog writes lines of a level or a graver one to standard error.
type stderrLog struct {
	module string
	least  int
}

func (l *stderrLog) write(level, format string, arguments []any) {
	if levels[level] >= l.least {
		now := time.Now().Format("15:04:05.000")
		fmt.Fprintf(os.Stderr, "%s %s %s: %s\n", now, level, l.module, fmt.Sprintf(format, arguments...))
	}
}

func (l *stderrLog) Debugf(format string, arguments ...any) { l.write("debug", format, arguments) }
func (l *stderrLog) Infof(format string, arguments ...any)  { l.write("info", format, arguments) }
func (l *stderrLog) Warnf(format string, arguments ...any)  { l.write("warn", format, arguments) }
func (l *stderrLog) Errorf(format string, arguments ...any) { l.write("error", format, arguments) }

func (l *stderrLog) Sub(module string) waLog.Logger {
	return &stderrLog{module: l.module + "/" + module, least: l.least}
}
