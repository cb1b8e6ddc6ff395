// SPDX-License-Identifier: Apache-2.0

// Package tap writes the Test Anything Protocol. It stands in for the package of that import path, which Debian does not
// have, and offers what the OCI validation suite uses of it.
package tap

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
)

// T is one stream of results.
type T struct {
	// Writer is where it goes.
	Writer io.Writer
	count  int
}

// New makes a stream on standard output.
func New() *T {
	return &T{Writer: os.Stdout}
}

func (t *T) say(format string, a ...interface{}) {
	fmt.Fprintf(t.Writer, format+"\n", a...)
}

// Header announces the version and, unless it is 0, the number of results.
func (t *T) Header(count int) {
	t.say("TAP version 13")
	if count > 0 {
		t.say("1..%d", count)
	}
}

// Ok is one result.
func (t *T) Ok(passed bool, description string) {
	t.count++
	word := "ok"
	if !passed {
		word = "not ok"
	}
	t.say("%s %d - %s", word, t.count, strings.ReplaceAll(description, "#", "\\#"))
}

// Pass is a result that is ok.
func (t *T) Pass(description string) {
	t.Ok(true, description)
}

// Fail is a result that is not.
func (t *T) Fail(description string) {
	t.Ok(false, description)
}

// Skip is so many results that were not looked for.
func (t *T) Skip(count int, description string) {
	for ; count > 0; count-- {
		t.count++
		t.say("ok %d # SKIP %s", t.count, description)
	}
}

// Todo is a stream whose failures are expected.
func (t *T) Todo() *T {
	return t
}

// AutoPlan announces the number of results that there were.
func (t *T) AutoPlan() {
	t.say("1..%d", t.count)
}

// Diagnostic is a remark.
func (t *T) Diagnostic(message string) {
	t.say("# %s", strings.ReplaceAll(message, "\n", "\n# "))
}

// Diagnosticf is a remark, formatted.
func (t *T) Diagnosticf(format string, a ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, a...))
}

// YAML adds a value to the last result; JSON is YAML, too.
func (t *T) YAML(value interface{}) error {
	text, err := json.MarshalIndent(value, "  ", "  ")
	if err == nil {
		t.say("  ---\n  %s\n  ...", text)
	}
	return err
}
