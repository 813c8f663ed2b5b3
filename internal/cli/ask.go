package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"
)

// ask puts a question of yes or no to the user; no is the default, and what an interrupt means.
func (e *env) ask(ctx context.Context, question string) bool {
	fmt.Fprintf(e.Stderr, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() { // cannot be stopped; the program ends soon after an interrupt
		line, _ := bufio.NewReaderSize(e.Stdin, 64).ReadString('\n') // at its end, what came counts
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return false
	case a := <-answer:
		return a == "y" || a == "yes"
	}
}
