package page

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// Replace puts text between the markers `<!-- name:begin -->` and `<!-- name:end -->` of a file.
func Replace(path, name, text string) error {
	begin, end := "<!-- "+name+":begin -->", "<!-- "+name+":end -->"
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("update the document: %w", err)
	}
	i, j := bytes.Index(b, []byte(begin)), bytes.Index(b, []byte(end))
	if i < 0 || j < i {
		return fmt.Errorf("update the document: it lacks the markers %s and %s", begin, end)
	}
	out := string(b[:i]) + begin + "\n" + strings.TrimSpace(text) + "\n" + string(b[j:])
	if err := os.WriteFile(path, []byte(out), 0o644); err != nil {
		return fmt.Errorf("update the document: %w", err)
	}
	return nil
}
