package internal_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hypha-net/hypha/internal/testutil/score"
)

// wallClock are the places that take time from a wall clock, or take the monotonic part away from a time: file and function, with
// the reason why a clock that is set cannot hurt there. Durations, leases and expiries anywhere else go by time.Now as it is.
var wallClock = map[string]string{
	"internal/cni/add.go note":                     "written into a note, for people",
	"internal/endpoint/pending/pending.go":         "the note's time, for people",
	"internal/endpoint/add.go attach":              "when the workload was attached, for people",
	"internal/model/endpoint.go":                   "when the workload was attached, for people",
	"internal/source/kvstore/cluster.go heartbeat": "for people and other tools; nobody here reads it",
	"internal/source/kvstore/health.go":            "a status, encoded but never read back",
	"internal/source/k8s/health.go":                "a status, encoded but never read back",
	"internal/source/k8s/claim.go read":            "which of two objects was created later, both by the API server's clock",
	"internal/source/k8s/servicetable.go before":   "which of two objects was created later, both by the API server's clock",
	"internal/operator/lb/service.go serviceOf":    "which of two objects was created earlier, both by the API server's clock",
	"internal/operator/lb/service.go poolOf":       "which of two objects was created earlier, both by the API server's clock",
	"internal/app/trend.go look":                   "to notice that the clock was moved, for display",
	"internal/source/file/scan.go Names":           "which temporary files a killed process has left: they stay for longer, or go while their writer, killed or not, has another",
	"internal/datapath/event/decode.go tick":       "how far the wall clock is from the kernel's monotonic one, taken anew each second, for display",
	"internal/datapath/event/decode.go packet":     "time of an event, for display",
	"internal/datapath/event/decode.go socket":     "time of an event, for display",
	"internal/datapath/device/watch.go listen":     "a deadline in the past ends a read at once",
	"internal/workload/client.go Echo":             "a deadline in the past ends a read at once",
	"internal/workload/ping.go Ping":               "a deadline in the past ends a read at once",
	"internal/workload/syn.go syn":                 "a deadline in the past ends a read at once",
	"internal/source/kvstore/pki.go openPKI":       "validity of certificates is wall time by nature: they begin two days back and end a year ahead",
	"internal/source/kvstore/pki.go renew":         "validity of certificates",
	"internal/source/kvstore/pki.go make":          "validity of certificates",
	"internal/observe/server/cert.go get":          "whether the file is another one",
	"internal/observe/server/cert.go current":      "validity of certificates",
	"internal/observe/server/cert.go issue":        "validity of certificates",
}

// What makes or takes a time without monotonic part: methods of time.Time, functions of package time, fields.
var (
	wallMethods = []string{"UnixNano", "UnixMilli", "UnixMicro", "Unix", "UTC", "AddDate", "AsTime", "ModTime"}
	wallFuncs   = []string{"Unix", "UnixMilli", "UnixMicro", "Parse", "ParseInLocation", "Date"}
	wallFields  = []string{"NotBefore", "NotAfter"}
)

// TestCase25Monotonic: outside the list above nothing in the product reckons with wall time. The CLI and what shows flows to
// people are left out: they show and select by times, and decide nothing.
func TestCase25Monotonic(t *testing.T) {
	sc := score.Start(t, "25", "no lease, expiry or interval is reckoned by the wall clock")
	found := map[string][]string{}
	files := 0
	shows := []string{"internal/cli", "internal/observe", "internal/monitor", "internal/demo", "internal/testutil"}
	for _, root := range []string{"../internal", "../cmd"} {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			name := filepath.ToSlash(strings.TrimPrefix(path, "../"))
			switch {
			case err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go"):
				return err
			case under(name, shows) && !strings.HasPrefix(name, "internal/observe/server/cert"):
				return nil
			}
			files++
			return wallUses(path, name, found)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, place := range slices.Sorted(maps.Keys(found)) {
		if wallClock[place] == "" {
			t.Errorf("%s: %s: reckon by the monotonic clock, or say in wallClock why it does not matter", place, strings.Join(found[place], ", "))
		}
	}
	for place := range wallClock {
		if found[place] == nil {
			t.Errorf("%s does not use the wall clock any more", place)
		}
	}
	if files < 100 {
		t.Errorf("only %d files looked at", files)
	}
	sc.Count(files, "files")
	sc.Say("%d places use wall time, each with its reason", len(found))
}

func wallUses(path, name string, found map[string][]string) error {
	set := token.NewFileSet()
	f, err := parser.ParseFile(set, path, nil, parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	for _, decl := range f.Decls {
		fn, ok := decl.(*ast.FuncDecl)
		place := name
		if ok {
			place += " " + fn.Name.Name
		}
		ast.Inspect(decl, func(n ast.Node) bool {
			what := ""
			switch x := n.(type) {
			case *ast.CallExpr:
				sel, ok := x.Fun.(*ast.SelectorExpr)
				if !ok {
					return true
				}
				pkg, _ := sel.X.(*ast.Ident)
				switch {
				case pkg != nil && pkg.Name == "time":
					if slices.Contains(wallFuncs, sel.Sel.Name) {
						what = "time." + sel.Sel.Name
					}
				case slices.Contains(wallMethods, sel.Sel.Name) && len(x.Args) == 0:
					what = "." + sel.Sel.Name + "()"
				case sel.Sel.Name == "Round" && len(x.Args) == 1:
					if lit, ok := x.Args[0].(*ast.BasicLit); ok && lit.Value == "0" {
						what = ".Round(0)"
					}
				}
			case *ast.SelectorExpr:
				if slices.Contains(wallFields, x.Sel.Name) {
					what = "." + x.Sel.Name
				}
			case *ast.KeyValueExpr:
				if id, ok := x.Key.(*ast.Ident); ok && slices.Contains(wallFields, id.Name) {
					what = id.Name
				}
			case *ast.Field: // comes back from a file without its monotonic part
				if sel, ok := x.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Time" && x.Tag != nil && strings.Contains(x.Tag.Value, "json:") {
					what = "stored field " + fmt.Sprint(x.Names)
				}
			}
			if what != "" {
				found[place] = append(found[place], what)
			}
			return true
		})
	}
	return nil
}
