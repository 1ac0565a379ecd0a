package browser

import "testing"

// training is a program whose output has colours and a progress bar, which fails where lr is 0.1, and which takes its time.
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
	b.says("There is no sweep yet")
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

// TestAlone opens the page of a machine that is in no cluster: all but the nodes is there.
func TestAlone(t *testing.T) {
	c := newState(t)
	b := newBrowser(t)
	b.allowFailures(true) // it has no nodes to list
	b.login(c.monitor())
	b.says("There is no sweep yet")
	b.see(".line.live")
	b.open("/nodes")
	b.says("This node is in no cluster")
	b.see(".line.live")
}
