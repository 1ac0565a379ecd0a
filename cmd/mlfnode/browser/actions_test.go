package browser

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestRetryAndExtend runs failed trials again and adds values, from the page: each asks first, with
// the count.
func TestRetryAndExtend(t *testing.T) {
	c := newCluster(t)
	good := filepath.Join(c.dir, "good")
	id := c.sweep("test -e "+good, "x=1,2,3", "y=4")
	if s := c.settled(id); s.Failed != 3 {
		t.Fatalf("%d trials failed, want 3", s.Failed)
	}
	b := newBrowser(t)
	b.login(c.monitor())
	b.open("/sweeps/" + id + "/trials/1")
	b.says("exit code 1")
	if err := os.WriteFile(good, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.click("Retry")
	b.says("Retry " + id + "/1?")
	b.click("Retry 1 trial")
	b.says("succeeded")
	b.says("attempt 2 of 2")
	b.open("/sweeps/" + id)
	b.click("Retry failed")
	b.click("Retry 2 trials")
	b.says("2 trials of " + id + " will run again")
	if s := c.settled(id); s.Succeeded != 3 {
		t.Fatalf("%d trials succeeded, want 3", s.Succeeded)
	}
	b.click("Extend")
	b.fill("#extend-values", "7,8")
	b.click("Run 2 new trials") // of x, whose axis is the first
	b.says(id + " has 2 new trials")
	if s := c.settled(id); s.Succeeded != 5 || s.Count != 5 {
		t.Errorf("%d of %d trials succeeded, want 5 of 5", s.Succeeded, s.Count)
	}
	b.click("Extend")
	b.fill("#extend-values", "7")
	b.says("7")
	b.wait("document.querySelector('dialog .failed') || document.querySelector('dialog .primary').disabled")
	b.allowFailures(true)
}

// TestPauseResumeCancelDrain goes through what else can be done, by buttons and by the palette.
func TestPauseResumeCancelDrain(t *testing.T) {
	c := newCluster(t)
	id := c.sweep("sleep 300", "x="+fmt.Sprint("1:21"))
	b := newBrowser(t)
	b.login(c.monitor())
	b.open("/sweeps/" + id)
	b.wait("/[1-9] ▶/.test(document.body.innerText)")
	b.click("Pause")
	b.wait("/[0-9]+ pending trials will wait/.test(document.querySelector('dialog')?.textContent)")
	b.confirm()
	b.says("paused")
	eval[bool](b, "(document.activeElement?.blur(), true)")
	b.press(":")
	b.see("dialog.palette input")
	b.fill("dialog.palette input", "resume")
	b.wait("document.querySelector('dialog li[aria-selected=true]')?.textContent.startsWith('Resume " + id + "')")
	b.press("\r")
	b.says("may start")
	b.confirm()
	b.says(id + " goes on")
	b.click("Cancel")
	b.says("Results stay")
	b.click("Cancel 20 trials")
	b.says(id + " is cancelled")
	b.open("/nodes/gpu-1")
	b.click("Drain")
	b.fill("#drain-why", "new disk")
	b.confirm()
	b.says("Drained: new disk")
	b.click("Undrain")
	b.confirm()
	b.says("gpu-1 takes trials again")
	b.wait("!document.body.innerText.includes('new disk')")
}
