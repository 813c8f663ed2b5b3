package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"unicode/utf8"

	"github.com/spf13/cobra"

	agentv1 "github.com/hypha-net/hypha/api/agent/v1"
	"github.com/hypha-net/hypha/internal/cli/out"
	"github.com/hypha-net/hypha/internal/escape"
)

// maxDocument bounds a policy file: far more than any real one.
const maxDocument = 32 << 20

// document is a policy file that was read.
type document struct {
	name string
	text []byte
}

// documents reads files, directories (their .json, .yaml and .yml files by name) and "-".
func (e *env) documents(args []string) ([]document, error) {
	var docs []document
	stdin := false
	for _, a := range args {
		if a == "-" {
			if stdin {
				return nil, usagef("standard input (-) can be read once only")
			}
			stdin = true
			b, err := readAll(e.Stdin, maxDocument)
			if err != nil {
				return nil, fmt.Errorf("read standard input: %w", err)
			}
			if err := checkText("standard input", b); err != nil {
				return nil, err
			}
			docs = append(docs, document{"standard input", b})
			continue
		}
		files, err := policyFiles(a)
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			b, err := readFile(f)
			if err != nil {
				return nil, err
			}
			docs = append(docs, document{f, b})
		}
	}
	return docs, nil
}

func policyFiles(path string) ([]string, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("there is no file %s", path)
	case err != nil:
		return nil, fmt.Errorf("read policy: %w", err)
	case !info.IsDir():
		return []string{path}, nil
	}
	entries, err := os.ReadDir(path) // sorted
	if err != nil {
		return nil, fmt.Errorf("read policies: %w", err)
	}
	var files []string
	for _, d := range entries {
		switch filepath.Ext(d.Name()) {
		case ".json", ".yaml", ".yml":
			files = append(files, filepath.Join(path, d.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the directory %s has no .json, .yaml or .yml file", path)
	}
	return files, nil
}

func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	defer f.Close()
	b, err := readAll(f, maxDocument)
	if err != nil {
		return nil, fmt.Errorf("read policy %s: %w", name, err)
	}
	return b, checkText(name, b)
}

// checkText refuses what is not UTF-8: JSON's decoder would put other characters in the place of what it cannot read.
func checkText(name string, b []byte) error {
	if utf8.Valid(b) {
		return nil
	}
	line := 1
	for len(b) > 0 {
		r, size := utf8.DecodeRune(b)
		switch {
		case r == utf8.RuneError && size == 1:
			return fmt.Errorf("%s: line %d: not UTF-8 text", name, line)
		case r == '\n':
			line++
		}
		b = b[size:]
	}
	return nil
}

func (e *env) policyImport() *cobra.Command {
	cmd := &cobra.Command{Use: "import FILE|DIRECTORY|-...", Aliases: []string{"apply"}, Short: "Put policies in force, from JSON or YAML",
		Long: "Put policies in force: a JSON array of rules, or YAML documents of CiliumNetworkPolicy, CiliumClusterwideNetworkPolicy\n" +
			"or CiliumCIDRGroup. With one error anywhere nothing is imported. Prints the policy revision that holds them.",
		Args: need(1, -1, "a policy: hypha policy import FILE   (- reads standard input)")}
	var replace, replaceBy, dryRun, print bool
	f := cmd.Flags()
	f.BoolVar(&replace, "replace", false, "first delete the policies that have the same labels")
	f.BoolVar(&replaceBy, "replace-by-labels", false, "the same")
	f.BoolVar(&dryRun, "dry-run", false, "let the agent check them, import nothing")
	f.BoolVarP(&print, "print", "p", false, "show all policies afterwards")
	o := e.output(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		docs, err := e.documents(args)
		if err != nil {
			return err
		}
		a, err := e.admin()
		if err != nil {
			return err
		}
		send := func(d document, dry bool) (*agentv1.ImportPolicyResponse, error) {
			resp, err := a.ImportPolicy(cmd.Context(), req(&agentv1.ImportPolicyRequest{
				Document: string(d.text), Filename: d.name, Replace: replace || replaceBy, DryRun: dry}))
			if err != nil {
				return nil, err
			}
			return resp.Msg, nil
		}
		if len(docs) > 1 && !dryRun { // all or nothing
			for _, d := range docs {
				if _, err := send(d, true); err != nil {
					return fmt.Errorf("nothing was imported: %w", err)
				}
			}
		}
		sum := &agentv1.ImportPolicyResponse{}
		for _, d := range docs {
			resp, err := send(d, dryRun)
			if err != nil {
				return err
			}
			sum.Revision = resp.GetRevision()
			sum.Count += resp.GetCount()
			sum.Warnings = append(sum.Warnings, resp.GetWarnings()...)
		}
		for _, w := range sum.GetWarnings() {
			e.say("Warning: %s", escape.Text(w))
		}
		return o.write(out.Proto{M: sum}, func() error {
			if dryRun {
				_, err := fmt.Fprintf(e.Stdout, "Valid: %s\n", count(uint64(sum.GetCount()), "rule"))
				return err
			}
			if print {
				p, err := e.getPolicy(cmd.Context(), nil)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintln(e.Stdout, lines(p.GetJson())); err != nil {
					return err
				}
			}
			_, err := fmt.Fprintf(e.Stdout, "Revision: %d\n", sum.GetRevision())
			return err
		})
	}
	return cmd
}

func (e *env) policyValidate() *cobra.Command {
	cmd := &cobra.Command{Use: "validate FILE|DIRECTORY|-...", Short: "Check policies without an agent",
		Long: "Check policies as the agent would, without one. Says file, path and reason of each mistake; exit code 1 if there is one.",
		Args: need(1, -1, "a policy: hypha policy validate FILE   (- reads standard input)")}
	verbose := cmd.Flags().BoolP("verbose", "v", false, "name the files that are well, too")
	o := e.output(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		docs, err := e.documents(args)
		if err != nil {
			return err
		}
		if e.ParsePolicy == nil {
			return errors.New("this program was built without the policy parser")
		}
		bad, rules := 0, 0
		files := make([]out.Object, 0, len(docs))
		for _, d := range docs {
			n, err := e.ParsePolicy(d.name, d.text)
			text := ""
			if err != nil {
				bad++
				text = err.Error()
				if o.table() {
					e.say("Error: %s", lines(text))
				}
			} else if *verbose && o.table() {
				fmt.Fprintf(e.Stdout, "%s: %s\n", escape.Text(d.name), count(uint64(n), "rule"))
			}
			rules += n
			files = append(files, out.Object{{Key: "file", Value: d.name}, {Key: "valid", Value: err == nil}, {Key: "rules", Value: n}, {Key: "error", Value: text}})
		}
		err = o.write(files, func() error {
			if bad == 0 {
				_, err := fmt.Fprintf(e.Stdout, "Valid: %s\n", count(uint64(rules), "rule"))
				return err
			}
			return nil
		})
		if err == nil && bad > 0 {
			return silent{ExitFailed}
		}
		return err
	}
	return cmd
}
