package top

import (
	"strings"

	tea "charm.land/bubbletea/v2"

	"mlfnode/grid/printable"
)

// dialog asks for confirmation before an action.
type dialog struct {
	title   string
	text    string // what the action will do
	verb    string
	option  string // switched on by Tab; empty for none
	on      bool
	leaving bool    // it asks before the program exits
	input   *prompt // a text that goes with the action; nil for none
	run     func(on bool, text string) tea.Cmd
}

// press handles a key: y confirms, n or Esc cancels. In a dialog with an input only Enter confirms,
// since y is part of the text.
func (d *dialog) press(m *Model, k tea.Key) tea.Cmd {
	key := k.String()
	switch {
	case key == "esc" || key == "n" && d.input == nil:
		m.dialog = nil
	case key == "enter" && d.input != nil || key == "y" && d.input == nil:
		m.dialog = nil
		text := ""
		if d.input != nil {
			text = strings.TrimSpace(d.input.text)
		}
		return d.run(d.on, text)
	case key == "tab" && d.option != "":
		d.on = !d.on
	case d.input != nil:
		d.input.edit(k)
	}
	return nil
}

// view returns the lines of the dialog.
func (d *dialog) view(p paint, width int) []string {
	out := []string{p.text(strong, fit(d.title, width))}
	out = append(out, wrap(d.text, width, 6)...)
	if d.option != "" {
		box := "[ ] "
		if d.on {
			box = "[x] "
		}
		out = append(out, wrap(box+d.option+" (Tab)", width, 3)...)
	}
	keys := "y " + d.verb + " · n keep as is"
	if d.input != nil {
		out = append(out, d.input.view(p, width))
		keys = "Enter " + d.verb + " · Esc cancel"
	}
	return append(out, fit(keys, width))
}

// prompt is a line in which the user types.
type prompt struct {
	label string
	text  string
	done  func(text string) tea.Cmd
}

// longestInput bounds the length of the input.
const longestInput = 400

func (p *prompt) press(m *Model, k tea.Key) tea.Cmd {
	switch k.String() {
	case "esc":
		m.prompt = nil
	case "enter":
		m.prompt = nil
		return p.done(p.text)
	default:
		p.edit(k)
	}
	return nil
}

func (p *prompt) edit(k tea.Key) {
	switch key := k.String(); {
	case key == "backspace" && p.text != "":
		r := []rune(p.text)
		p.text = string(r[:len(r)-1])
	case key == "ctrl+u":
		p.text = ""
	case key == "ctrl+w":
		p.text = strings.TrimRight(p.text, " ")
		p.text = p.text[:strings.LastIndex(p.text, " ")+1]
	default:
		p.add(k.Text)
	}
}

func (p *prompt) add(text string) { p.text = printable.Clip(p.text+clean(text), longestInput) }

// view shows the end of the input.
func (p *prompt) view(style paint, width int) string {
	text := []rune(p.text)
	room := max(1, width-len([]rune(p.label))-1)
	if len(text) > room {
		text = text[len(text)-room:]
	}
	return fit(style.text(strong, p.label)+string(text)+style.text(chosen, " "), width)
}
