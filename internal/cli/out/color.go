package out

// Style is how a piece of text looks, where colours are wanted.
type Style string

// The styles, as SGR parameters.
const (
	Plain  Style = ""
	Bold   Style = "1"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
	Faint  Style = "2"
)

// Styled is text with a style, for a table's cell.
type Styled struct {
	Text  string
	Style Style
}

// Color says whether styles are shown.
type Color bool

// WantColor decides: only on a terminal, and not with NO_COLOR (https://no-color.org) or TERM=dumb.
func WantColor(tty bool, getenv func(string) string) Color {
	return Color(tty && getenv("NO_COLOR") == "" && getenv("TERM") != "dumb")
}

// Paint styles text that is already escaped.
func (c Color) Paint(s Style, text string) string {
	if !c || s == Plain {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}
