package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"mlfnode/grid"
	"mlfnode/node/api"
)

// lostOutput collects what is missing from the stored output of the trials in a table, to be
// printed below it.
type lostOutput struct {
	cut, gone []int64 // indexes
	bytes     int64   // cut
}

func (m *lostOutput) add(t *api.Trial) {
	if t.Output.Cut > 0 {
		m.cut = append(m.cut, t.Index)
		m.bytes += t.Output.Cut
	}
	if t.Output.Gone != "" {
		m.gone = append(m.gone, t.Index)
	}
}

// print prints what is missing, if anything is.
func (m *lostOutput) print(ui *console) {
	if len(m.cut) > 0 {
		ui.say("output of %s was cut: %s were not stored (log_limit of the task, or a full disk)", trialList(m.cut),
			bytesText(m.bytes))
	}
	if len(m.gone) > 0 {
		ui.say(
			"output of %s was removed, in part or in full: the oldest output is removed when the total exceeds retention.logs",
			trialList(m.gone))
	}
}

// trialsNamed is how many trials are named before the rest are only counted.
const trialsNamed = 5

func trialList(all []int64) string {
	names := make([]string, 0, trialsNamed)
	for _, i := range all[:min(len(all), trialsNamed)] {
		names = append(names, strconv.FormatInt(i, 10))
	}
	text := "trials " + strings.Join(names, ", ")
	if len(all) == 1 {
		text = "trial " + names[0]
	}
	if more := len(all) - len(names); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// whyRemoved is the reason why output is missing that was once stored.
const whyRemoved = "the oldest output is removed when the total exceeds retention.logs"

// lostText says what is missing from an attempt's output.
func lostText(cut, gone int64) string {
	var parts []string
	if gone > 0 {
		parts = append(parts, bytesText(gone)+" of older output were removed: "+whyRemoved)
	}
	if cut > 0 {
		parts = append(parts,
			fmt.Sprintf("%s more were printed and cut: they exceed log_limit of the task, or the disk was full",
				bytesText(cut)))
	}
	return strings.Join(parts, "; ")
}

// lostOutputText says what is missing from the output of an attempt in a list.
func lostOutputText(p *api.Printed) string {
	gone := int64(0)
	if p.Gone == api.AllGone {
		gone = p.Bytes
	}
	text := lostText(p.Cut, gone)
	if p.Gone == api.PartGone {
		text = strings.TrimSuffix("the beginning of its output was removed: "+whyRemoved+"; "+text, "; ")
	}
	return text
}

// loggedGap is a gap in the output as `logs --json` prints it.
type loggedGap struct {
	Trial string `json:"trial"`
	Cut   int64  `json:"cut_bytes"`
	Gone  int64  `json:"gone_bytes"`
}

// printLostOutput prints what is missing from a trial's output: among its lines, or beside the
// bytes of the program.
func printLostOutput(ui *console, id grid.SweepID, o *api.Output, raw bool, shown *lineWriter) error {
	switch {
	case ui.json:
		trial := grid.TrialID{Sweep: id, Index: o.Index}.String()
		return json.NewEncoder(ui.stdout).Encode(loggedGap{trial, o.Cut, o.Gone})
	case raw:
		ui.say("%s/%d: %s", id, o.Index, lostText(o.Cut, o.Gone))
	default:
		shown.flush()
		shown.emit(fmt.Sprintf("%s/%d … %s", id, o.Index, lostText(o.Cut, o.Gone)))
	}
	return nil
}
