package connectivity

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Config is how to test.
type Config struct {
	Selection      Selection
	Flows          FlowValidation
	FlowsWait      time.Duration // how long the telling of a drop may take
	ConnectTimeout time.Duration // how long a refusal is waited for
	RequestTimeout time.Duration // how long an answer is waited for
	Parallel       int           // actions at a time
	PostTestSleep  time.Duration
	Verbose        bool
	PrintFlows     bool                  // all that was dropped during each test
	SingleNode     bool                  // nothing that needs two nodes
	Keep           bool                  // leave the workloads there
	Pause          func(context.Context) // after a failure; nil: no pause
}

// FlowValidation says what is made of what nodes tell about a refusal.
type FlowValidation string

// Modes of flow validation.
const (
	FlowsStrict   FlowValidation = "strict"  // without the drop it is a failure
	FlowsWarn     FlowValidation = "warning" // without the drop there is a remark
	FlowsDisabled FlowValidation = "disabled"
)

// Marks that lines begin with, as the field's tool has them.
const (
	markInfo = "ℹ️  "
	markWarn = "⚠️  "
	markFail = "❌ "
	markWait = "⌛ "
	markMake = "✨ "
)

// cleanupTime is how long the end of a run may take that was interrupted.
const cleanupTime = 30 * time.Second

// FailedError says how many tests have failed.
type FailedError struct{ Tests int }

// Error implements error.
func (e *FailedError) Error() string {
	return fmt.Sprintf("connectivity test failed: %d tests failed", e.Tests)
}

// Run runs the tests of a suite in a place, prints what comes of them and returns a *FailedError where any has failed. What it has put in
// force it takes away, however it ends.
func Run(ctx context.Context, place Place, suite []*Test, c Config, log *Log) (err error) {
	clean := func(what string, fn func(context.Context) error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if e := fn(ctx); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", what, e))
		}
	}
	defer func() {
		if !c.Keep {
			clean("remove the workloads", place.Close)
		}
	}()
	site, err := place.Deploy(ctx, log)
	if err != nil {
		return err
	}
	r := &runner{place: place, site: site, cfg: c, log: log, name: site.Namespace}
	if c.Flows != FlowsDisabled {
		if _, err := place.Drops(ctx, time.Second); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			log.Line(markWarn, "Unable to ask nodes what they drop, disabling flow validation: %s", err)
			r.cfg.Flows = FlowsDisabled
		}
	}
	log.Line("🏃", "[%s] Running %d tests ...", r.name, len(suite))
	for i, t := range suite {
		if ctx.Err() != nil {
			break
		}
		r.test(ctx, t, fmt.Sprintf("%d/%d", i+1, len(suite)))
		if t.skipped == "" && c.PostTestSleep > 0 {
			sleep(ctx, c.PostTestSleep)
		}
	}
	if ctx.Err() != nil {
		log.Line("", "[%s] Cancelled: %s", r.name, context.Cause(ctx))
		return context.Cause(ctx)
	}
	return r.report(suite)
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

type runner struct {
	place Place
	site  *Site
	cfg   Config
	log   *Log
	name  string
}

// test runs one test, whose number is for messages.
func (r *runner) test(ctx context.Context, t *Test, number string) {
	if t.skipped = r.skip(t); t.skipped != "" {
		r.log.Line("", "[=] [%s] Skipping test [%s] [%s] (%s)", r.name, t.Name, number, t.skipped)
		return
	}
	r.log.Line("", "[=] [%s] Test [%s] [%s]", r.name, t.Name, number)
	begin := time.Now()
	defer func() { t.seconds = time.Since(begin).Seconds() }()
	fail := func(what string, err error) {
		if ctx.Err() == nil {
			t.err = errors.Join(t.err, fmt.Errorf("%s: %w", what, err))
			r.log.Line("  "+markFail, "%s: %s", what, err)
		}
	}
	defer func() {
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTime)
		defer cancel()
		if len(t.Policies) == 0 {
			return
		}
		if err := r.place.Remove(end); err != nil {
			fail("remove policies", err)
		}
	}()
	policies, err := r.documents(t)
	if err == nil && len(policies) > 0 {
		err = r.place.Apply(ctx, policies)
	}
	if err != nil {
		fail("apply policies", err)
		return
	}
	for _, sc := range t.Scenarios {
		if ctx.Err() != nil {
			return
		}
		r.scenario(ctx, t, sc)
	}
	if t.failed() && r.cfg.Pause != nil && ctx.Err() == nil {
		r.log.Line("", "  Pausing after a failure, press the Enter key to continue:")
		r.cfg.Pause(ctx)
	}
}

// skip says why a test is not run; "": it is.
func (r *runner) skip(t *Test) string {
	switch {
	case !r.cfg.Selection.wantsAny(t):
		return "skipped by user"
	case t.Skip != "":
		return t.Skip
	}
	needs := slices.Clone(t.Needs)
	if slices.ContainsFunc(t.Policies, func(p string) bool { return strings.HasSuffix(p, "-knp") }) {
		needs = append(needs, KubePolicy)
	}
	if why := r.site.lacks(needs...); why != "" {
		return why
	}
	why := ""
	for _, sc := range t.Scenarios { // one that can be run is enough
		if r.cfg.Selection.wants(t.Name + "/" + sc.Name) {
			if why = r.site.lacks(sc.Needs...); why == "" {
				return ""
			}
		}
	}
	return why
}

func (r *runner) documents(t *Test) ([]Document, error) {
	var out []Document
	for _, name := range t.Policies {
		d, err := document(name, r.site.values(t.Ranged))
		if err != nil {
			return nil, err
		}
		if t.Clusterwide {
			d = d.clusterwide()
		}
		out = append(out, d)
	}
	return out, nil
}

func (r *runner) scenario(ctx context.Context, t *Test, sc Scenario) {
	name := t.Name + "/" + sc.Name
	if !r.cfg.Selection.wants(name) || r.site.lacks(sc.Needs...) != "" {
		t.left = append(t.left, sc)
		if r.cfg.Verbose {
			r.log.Line("", "  [-] Skipping Scenario [%s] (%s)", name, r.site.lacks(sc.Needs...))
		}
		return
	}
	actions := sc.actions(r.site)
	if len(actions) == 0 {
		t.left = append(t.left, sc)
		return
	}
	if r.cfg.Verbose {
		r.log.Line("", "  [-] Scenario [%s]", name)
	}
	for _, a := range actions {
		a.Test, a.Scenario = t.Name, sc.Name
		if t.Want != nil {
			a.Want = t.Want(r.site, a)
		}
	}
	t.actions = append(t.actions, actions...)
	begin := time.Now()
	r.try(ctx, actions)
	if ctx.Err() != nil {
		return
	}
	r.validate(ctx, actions, begin)
	for _, a := range actions {
		r.tell(a)
	}
}

// try runs actions, several at a time.
func (r *runner) try(ctx context.Context, actions []*Action) {
	patience := patience{answer: r.cfg.RequestTimeout, refusal: r.cfg.ConnectTimeout}
	var wg sync.WaitGroup
	slots := make(chan struct{}, max(r.cfg.Parallel, 1))
	for _, a := range actions {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if a.run(ctx, r.place, patience); a.Err == nil && !r.cfg.Verbose {
				r.log.Dot()
			}
		})
	}
	wg.Wait()
}

// validate asks nodes about refusals, and about answers that did not come.
func (r *runner) validate(ctx context.Context, actions []*Action, begin time.Time) {
	asked := slices.ContainsFunc(actions, func(a *Action) bool { return a.Want.Dropped || a.Err != nil })
	if r.cfg.Flows == FlowsDisabled || !asked && !r.cfg.PrintFlows {
		return
	}
	for end := time.Now().Add(r.cfg.FlowsWait); ; sleep(ctx, min(r.cfg.FlowsWait, 200*time.Millisecond)) {
		drops, err := r.place.Drops(ctx, time.Since(begin)+time.Second)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			r.log.Line(markWarn, "Unable to ask nodes what they have dropped: %s", err)
			return
		}
		missing := map[*Action]error{}
		for _, a := range actions {
			if a.Want.Dropped && a.Err == nil {
				if err := a.check(drops); err != nil {
					missing[a] = err
				}
			}
		}
		if len(missing) > 0 && time.Now().Before(end) {
			continue
		}
		for a, err := range missing {
			if r.cfg.Flows == FlowsStrict {
				a.Err = err
			} else {
				a.Remarks = append(a.Remarks, err.Error())
			}
		}
		for _, a := range actions {
			if a.Err != nil {
				a.explain(drops)
			}
		}
		if r.cfg.PrintFlows {
			for _, f := range drops {
				r.log.Line("", "    %s", tell(f))
			}
		}
		return
	}
}

func (r *runner) tell(a *Action) {
	switch {
	case a.Err != nil:
		r.log.Line("  "+markFail, "Action [%s]: %s", a, a.Err)
	case r.cfg.Verbose:
		r.log.Line("", "  [.] Action [%s]", a)
	}
	if a.Err != nil || r.cfg.Verbose || r.cfg.Flows == FlowsWarn {
		for _, remark := range a.Remarks {
			r.log.Line("    "+markInfo, "%s", remark)
		}
	}
}
