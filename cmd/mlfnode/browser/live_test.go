package browser

import (
	"fmt"
	"testing"
)

// training is a program whose output has colours and a progress bar, which fails where lr is 0.1,
// and which takes its time.
const training = `for a; do case $a in --lr=*) lr=${a#*=};; --steps=*) steps=${a#*=};; esac; done
printf '\033[32mgreen\033[0m lr %s\n' $lr
i=0; while [ $i -lt $steps ]; do i=$((i+1)); printf '\rstep %d of %d' $i $steps; sleep 0.1; done; echo
[ $lr = 0.1 ] && { echo "ValueError: lr is too large" >&2; exit 3; }
echo "{\"accuracy\": 0.9$steps, \"loss\": $lr}" >>$MLF_METRICS`

// TestLiveUpdate watches counts change without a reload, on the overview and on a trial's page.
func TestLiveUpdate(t *testing.T) {
	c := newCluster(t)
	m := c.monitor()
	b := newBrowser(t)
	b.login(m)
	b.says("There are no sweeps yet")
	eval[bool](b, "window.kept = true")
	id := c.sweep(training, "lr=0.01,0.1", "steps=8")
	b.says(id)
	b.says("1 ✓")
	b.says("1 ✕")
	b.says("ValueError: lr is too large")
	if !eval[bool](b, "window.kept === true") {
		t.Error("the page has been loaded again")
	}
	b.click(id)
	b.wait("location.pathname === '/sweeps/" + id + "'")
	if !eval[bool](b, "window.kept === true") {
		t.Error("a link loads the page again")
	}
}

// TestAlone opens the page of a machine that is not in a cluster: all but the nodes is there.
func TestAlone(t *testing.T) {
	c := newState(t)
	b := newBrowser(t)
	b.allowFailures(true) // it has no nodes to list
	b.login(c.monitor())
	b.says("There are no sweeps yet")
	b.see(".line.live")
	b.open("/nodes")
	b.says("This node is not in a cluster")
	b.see(".line.live")
}

// TestLastHour shows how many trials ended in each minute, and how busy nodes and their GPUs were.
func TestLastHour(t *testing.T) {
	with := build(t, "-tags", "fakegpus")
	c := newCluster(t, func(c *cluster) { c.program, c.env = with, []string{"MLF_FAKE_GPUS=2xA100-40"} })
	m := c.monitor()
	b := newBrowser(t)
	b.login(m)
	b.says("No trial has ended in the last hour.")
	c.settled(c.sweep("test $1 != --x=3", "x=1,2,3,4"))
	b.says("4 trials ended in the last hour, at most")
	b.wait("document.querySelectorAll('svg.rate rect.succeeded').length > 0 && document.querySelectorAll('svg.rate rect.failed').length === 1")
	axe := axeCore(t)
	for _, theme := range []string{"light", "dark"} {
		b.media("prefers-color-scheme", theme)
		for _, width := range []int64{1280, 400} {
			b.size(width, 900)
			b.open("/")
			b.see("svg.rate rect")
			audit(b, axe, theme+" overview")
			b.shot(fmt.Sprintf("rate-%s-%d", theme, width))
			b.open("/nodes")
			for _, name := range []string{"CPU of gpu-1: ", "memory of gpu-1: ", "GPU 0 of gpu-1: ",
				"GPU 1 memory of gpu-1: "} {
				b.see(fmt.Sprintf(`.strips svg[aria-label^="%s"][aria-label*=" now, "] path[d^=M]`, name))
			}
			audit(b, axe, theme+" nodes")
			b.shot(fmt.Sprintf("strips-%s-%d", theme, width))
			if wide := eval[int64](b, "document.documentElement.scrollWidth"); wide > width {
				t.Errorf("%s %d: the page is %d px wide", theme, width, wide)
			}
		}
	}
}
