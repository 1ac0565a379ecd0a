package docker_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/docker/dockertest"
)

// begin runs an attempt and returns once its program has written the file ready.
func begin(t *testing.T, x executor.Executor, a *executor.Attempt) <-chan executor.Outcome {
	t.Helper()
	s, err := x.Slot()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	end := make(chan executor.Outcome, 1)
	go func() { end <- s.Run(t.Context(), a) }()
	eventually(t, "the program to begin", func() bool { return exists(a, "ready") })
	return end
}

func exists(a *executor.Attempt, name string) bool {
	_, err := os.Stat(filepath.Join(a.Dir, name))
	return err == nil
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(3 * time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("waited in vain for: %s", what)
		}
	}
}

func end(t *testing.T, ends <-chan executor.Outcome) executor.Outcome {
	t.Helper()
	select {
	case o := <-ends:
		return o
	case <-time.After(2 * time.Minute):
		t.Fatal("the attempt does not end")
		return executor.Outcome{}
	}
}

func touch(t *testing.T, a *executor.Attempt, name string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(a.Dir, name), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func expect(t *testing.T, o executor.Outcome, class grid.Class, code int, words string) {
	t.Helper()
	if o.Class != class || o.ExitCode != code || !strings.Contains(o.Reason, words) {
		t.Errorf("got class %q, exit code %d, reason %q; want %q, %d, …%s…", o.Class, o.ExitCode,
			o.Reason, class, code, words)
	}
}

func nothingLeft(t *testing.T, e *dockertest.Engine, o docker.Options) {
	t.Helper()
	eventually(t, "containers and their folders to go", func() bool {
		folders, _ := filepath.Glob(filepath.Join(o.Dir, "*"))
		return len(e.Containers("mlfnode.token="+o.Token)) == 0 && len(folders) == 0
	})
}

const waiting = "echo one; echo >ready; while ! test -e go; do sleep 0.01; done; echo two; "

// TestOutcomesAcrossEngineRestarts stops, kills and restarts the engine while programs run, with
// and without live-restore: each attempt ends with the program's own result or by the engine's
// fault, and none keeps running.
func TestOutcomesAcrossEngineRestarts(t *testing.T) {
	t.Parallel()
	for _, live := range []bool{false, true} {
		for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
			t.Run(fmt.Sprintf("%v, live-restore %v", signal, live), func(t *testing.T) {
				t.Parallel()
				var args []string
				if live {
					args = append(args, "--live-restore")
				}
				e := dockertest.New(t, args...)
				o := options(t, e)
				x := docker.New(o, logTo(t))
				defer x.Close()
				long := attempt(t, waiting+"exit 3")
				polite := attempt(t, "trap 'exit 0' TERM; "+waiting+"exit 4")
				meanwhile := attempt(t, "echo >ready; while ! test -e go; do sleep 0.01; done; echo two; exit 5")
				ends := []<-chan executor.Outcome{begin(t, x, long), begin(t, x, polite), begin(t, x, meanwhile)}
				e.Signal(signal)
				touch(t, meanwhile, "go") // with live-restore, and after KILL, it ends while the engine is down
				time.Sleep(300 * time.Millisecond)
				if err := e.Start(); err != nil {
					t.Fatal(err)
				}
				if live {
					touch(t, long, "go")
					touch(t, polite, "go")
					expect(t, end(t, ends[0]), grid.ClassExit, 3, "")
					expect(t, end(t, ends[1]), grid.ClassExit, 4, "")
					expect(t, end(t, ends[2]), grid.ClassExit, 5, "")
					if out, _ := output(t, long); out != "one\ntwo\n" {
						t.Errorf("output: got %q, want all of it", out)
					}
				} else {
					for i, name := range []string{"long", "polite"} {
						if got := end(t, ends[i]); got.Class != grid.ClassEngine {
							t.Errorf("%s: got class %q, exit code %d, %q; want class engine", name, got.Class,
								got.ExitCode, got.Reason)
						}
					}
					if got := end(t, ends[2]); got.Class != grid.ClassEngine &&
						(got.Class != grid.ClassExit || got.ExitCode != 5) {
						t.Errorf("meanwhile: got class %q, exit code %d, %q; want its own end or class engine",
							got.Class, got.ExitCode, got.Reason)
					}
				}
				expect(t, run(t, x, attempt(t, "exit 6")), grid.ClassExit, 6, "") // the engine works again
				nothingLeft(t, e, o)
			})
		}
	}
}

// TestContainersOutliveThePodmanService ends the service of Podman while programs run, whose
// containers do not need it.
func TestContainersOutliveThePodmanService(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		t.Run(signal.String(), func(t *testing.T) {
			e := dockertest.NewKind(t, dockertest.Podman)
			o := options(t, e)
			x := docker.New(o, logTo(t))
			defer x.Close()
			long, meanwhile := attempt(t, waiting+"exit 3"), attempt(t, waiting+"exit 5")
			ends := []<-chan executor.Outcome{begin(t, x, long), begin(t, x, meanwhile)}
			e.Signal(signal)
			touch(t, meanwhile, "go")
			eventually(t, "a program to go on without the engine", func() bool {
				out, _ := output(t, meanwhile)
				return out == "one\ntwo\n"
			})
			if err := e.Start(); err != nil {
				t.Fatal(err)
			}
			touch(t, long, "go")
			expect(t, end(t, ends[0]), grid.ClassExit, 3, "")
			expect(t, end(t, ends[1]), grid.ClassExit, 5, "")
			nothingLeft(t, e, o)
		})
	}
}

// TestContainersStoppedByHand stops, kills and removes containers with the engine's own tools.
func TestContainersStoppedByHand(t *testing.T) {
	everyEngine(t, byHand)
}

func byHand(t *testing.T, e *dockertest.Engine) {
	o := options(t, e)
	x := docker.New(o, logTo(t))
	defer x.Close()
	for name, c := range map[string]struct {
		script, path, method string
		class                grid.Class
		code                 int
	}{
		"stop": {"sleep 1000", "/stop?t=1", "POST", grid.ClassEngine, 143},
		"stop of a polite one": {"trap 'exit 0' TERM; while :; do sleep 0.01; done", "/stop?t=5",
			"POST", grid.ClassEngine, 0},
		"kill": {"sleep 1000", "/kill", "POST", grid.ClassEngine, 137},
		"rm":   {"sleep 1000", "?force=1", "DELETE", grid.ClassEngine, grid.NoExit},
		"a signal that ends none": {"trap 'exit 9' USR1; while :; do sleep 0.01; done", "/kill?signal=USR1",
			"POST", grid.ClassExit, 9},
	} {
		t.Run(name, func(t *testing.T) {
			if why := podmanDiffers[name]; e.Kind == dockertest.Podman && why != "" {
				t.Skip(why)
			}
			a := attempt(t, "echo >ready; "+c.script)
			ends := begin(t, x, a)
			var all []string
			eventually(t, "the container to be listed", func() bool {
				all = e.Containers("mlfnode.token=" + o.Token)
				return len(all) == 1
			})
			if err := e.Do(c.method, "/containers/"+all[0]+c.path, nil, nil); err != nil {
				t.Fatal(err)
			}
			o := end(t, ends)
			if o.Class != c.class || o.ExitCode != c.code && !(name == "rm" && o.ExitCode == 137) {
				t.Errorf("got class %q, exit code %d, %q; want %q, %d", o.Class, o.ExitCode, o.Reason, c.class, c.code)
			}
		})
	}
	nothingLeft(t, e, o)
}

// TestOutOfMemory distinguishes the kernel's kill of the program from that of a child.
func TestOutOfMemory(t *testing.T) {
	everyEngine(t, outOfMemory)
}

func outOfMemory(t *testing.T, e *dockertest.Engine) {
	x := newExecutor(t, e)
	for _, c := range []struct {
		script string
		class  grid.Class
		code   int
		words  string
	}{
		{"exec tail /dev/zero", grid.ClassMemory, 137, "ran out of memory: its limit is 32 MiB"},
		{"tail /dev/zero; exit $?", grid.ClassMemory, 137, "ran out of memory"},
		{"tail /dev/zero; exit 7", grid.ClassMemory, 7, "ran out of memory"},
		{"tail /dev/zero; exit 0", grid.ClassNone, 0, ""},
		{"kill -9 $$", grid.ClassSignal, 137, "SIGKILL"},
	} {
		a := attempt(t, c.script)
		a.Memory = 32 << 20
		o := run(t, x, a)
		if o.Class != c.class || o.ExitCode != c.code || !strings.Contains(o.Reason, c.words) {
			t.Errorf("%s: got class %q, exit code %d, %q; want %q, %d, %q", c.script, o.Class, o.ExitCode, o.Reason,
				c.class, c.code, c.words)
		}
	}
}

// TestMissingProgramsAreRefused runs programs that an image does not have.
func TestMissingProgramsAreRefused(t *testing.T) {
	everyEngine(t, refusals)
}

func refusals(t *testing.T, e *dockertest.Engine) {
	if err := e.Import("bare:test", nil); err != nil {
		t.Fatal(err)
	}
	o := options(t, e)
	x := docker.New(o, logTo(t))
	defer x.Close()
	for _, c := range []struct {
		argv  []string
		image string
		class grid.Class
		code  int
		words string
	}{
		{[]string{"pythonx"}, "", grid.ClassStart, 127, `the image has no program "pythonx"`},
		{[]string{"./none"}, "", grid.ClassStart, 127, `the image has no program "./none"`},
		{[]string{"./plain"}, "", grid.ClassStart, 126, `"./plain" is not a program that can be run`},
		{[]string{"/bin/busybox"}, "bare:test", grid.ClassImage, 126, "the image has no /bin/sh"},
		{[]string{"true"}, "none:1", grid.ClassImage, 126, "none:1"},
		{[]string{"true"}, "NOT A NAME", grid.ClassImage, 126, "reference"},
	} {
		a := attempt(t, "")
		a.Argv = c.argv
		touch(t, a, "plain")
		if c.image != "" {
			a.Container.Image = c.image
		}
		o := run(t, x, a)
		if o.Class != c.class || o.ExitCode != c.code || !strings.Contains(o.Reason, c.words) {
			t.Errorf("%q: got class %q, exit code %d, %q; want %q, %d, …%s…", c.argv, o.Class, o.ExitCode, o.Reason,
				c.class, c.code, c.words)
		}
	}
	a := attempt(t, "exit 0")
	a.Container.Mounts = append(a.Container.Mounts, executor.Mount{Source: "/nowhere"})
	expect(t, run(t, x, a), grid.ClassNode, 126, "/nowhere")
	a = attempt(t, "exit 0")
	a.Container.Network = "none-such"
	expect(t, run(t, x, a), grid.ClassStart, 126, "none-such")
	nothingLeft(t, e, o)
}

// TestOutputIsComplete prints 200 MiB of noise on both streams together and compares them.
func TestOutputIsComplete(t *testing.T) {
	everyEngine(t, outputIsWhole)
}

func outputIsWhole(t *testing.T, e *dockertest.Engine) {
	x := newExecutor(t, e)
	a := attempt(t, `noise() { dd if=/dev/urandom of=noise$1 bs=1048576 count=100 2>/dev/null; cat noise$1; }; noise 1 & noise 2 >&2; wait`)
	expect(t, run(t, x, a), grid.ClassNone, 0, "")
	for i, path := range a.Container.Output {
		got, err := os.ReadFile(path)
		want, werr := os.ReadFile(filepath.Join(a.Dir, fmt.Sprint("noise", i+1)))
		if err != nil || werr != nil || len(got) != 100<<20 || sha256.Sum256(got) != sha256.Sum256(want) ||
			!bytes.Equal(got[:64], want[:64]) {
			t.Errorf("stream %d: got %d bytes, %v; want the %d that were printed, %v", i+1, len(got),
				err, len(want), werr)
		}
	}
}

// TestNoContainerOrFolderIsLeft runs 200 containers, a few at a time.
func TestNoContainerOrFolderIsLeft(t *testing.T) {
	everyEngine(t, nothingIsLeft)
}

func nothingIsLeft(t *testing.T, e *dockertest.Engine) {
	o := options(t, e)
	x := docker.New(o, logTo(t))
	defer x.Close()
	many := func(n int) {
		var all sync.WaitGroup
		defer all.Wait()
		for i := range 4 {
			a := attempt(t, fmt.Sprintf("echo %d; sleep 1000 & exit %d", i, i))
			all.Go(func() {
				for range n {
					if out := run(t, x, a); out.ExitCode != i {
						t.Errorf("got %+v, want exit code %d", out, i)
					}
				}
			})
		}
	}
	many(2) // connections that are kept open are not leaks
	before := counts(t)
	many(50)
	nothingLeft(t, e, o)
	eventually(t, "goroutines, files, mounts and cgroups to be as before", func() bool {
		after := counts(t)
		for name, n := range before {
			if after[name] > n {
				return false
			}
		}
		return true
	})
}

// counts counts everything that could leak. The files of the attempts are closed with the test.
func counts(t *testing.T) map[string]int {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]int{"goroutines": runtime.NumGoroutine(), "mounts": bytes.Count(mounts, []byte("\n"))}
	for _, pattern := range []string{"/sys/fs/cgroup/docker/*", "/sys/fs/cgroup/*/docker/*"} {
		found, _ := filepath.Glob(pattern)
		all["cgroups"] += len(found)
	}
	pipes, _ := filepath.Glob("/proc/self/fd/*")
	for _, fd := range pipes {
		if to, _ := os.Readlink(fd); !strings.Contains(to, "/std") { // pipes of runs, not files of attempts
			all["files"]++
		}
	}
	return all
}

// TestCrashBeforeTheContainerRuns simulates a process that died at each step before its container
// ran.
func TestCrashBeforeTheContainerRuns(t *testing.T) {
	everyEngine(t, crashedCreation)
}

func crashedCreation(t *testing.T, e *dockertest.Engine) {
	o := options(t, e)
	for name, order := range map[string]string{
		"mlfnode-" + o.Token + "-a": `{"v":1,"owner":{"pid":1,"start":1,"boot":"x"},"spec":{"name":"a","dir":"/","container":{"image":"busybox:test"}}}`,
		"mlfnode-" + o.Token + "-b": `{"v":1,"ow`,
		"mlfnode-" + o.Token + "-c": "",
	} {
		dir := filepath.Join(o.Dir, name)
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if order != "" {
			if err := os.WriteFile(filepath.Join(dir, "order.json"), []byte(order), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		body := fmt.Sprintf(`{"Image":%q,"Cmd":["sleep","1000"],"Labels":{"mlfnode.token":%q}}`,
			dockertest.Image, o.Token)
		if err := e.Do("POST", "/containers/create?name="+name, strings.NewReader(body), nil); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := docker.Reap(context.Background(), o, logTo(t)); n != 3 || err != nil {
		t.Errorf("reap: got %d, %v; want 3", n, err)
	}
	nothingLeft(t, e, o)
	body := fmt.Sprintf(`{"Image":%q,"Cmd":["sleep","1000"],"Labels":{"mlfnode.token":%q}}`, dockertest.Image, o.Token)
	if err := e.Do("POST", "/containers/create?name=stray", strings.NewReader(body), nil); err != nil {
		t.Fatal(err)
	}
	x := docker.New(o, logTo(t))
	defer x.Close()
	expect(t, run(t, x, attempt(t, "exit 0")), grid.ClassNone, 0, "")
	nothingLeft(t, e, o) // a container without a folder is removed when the engine is first contacted
}

// TestOrphansOnAnotherEngine makes a dead process leave a container on an engine whose address is
// no longer the node's: it may be the same engine at another address, or a different one. In both
// cases nothing keeps running and no folder stays.
func TestOrphansOnAnotherEngine(t *testing.T) {
	e := docker.Shared.Engine(t)
	for name, now := range map[string]*dockertest.Shared{"the same": &docker.Shared, "another": &docker.SharedPodman} {
		t.Run(name, func(t *testing.T) {
			o := options(t, now.Engine(t))
			run := "mlfnode-" + o.Token + "-a"
			order := `{"v":1,"owner":{"pid":1,"start":1,"boot":"x"},"spec":{"name":"a","dir":"/","container":{"image":"busybox:test","engine":"unix:///nowhere/docker.sock"}}}`
			if err := errors.Join(os.MkdirAll(filepath.Join(o.Dir, run, "io"), 0o700),
				os.WriteFile(filepath.Join(o.Dir, run, "order.json"), []byte(order), 0o600)); err != nil {
				t.Fatal(err)
			}
			body := fmt.Sprintf(
				`{"Image":%q,"Cmd":["sleep","1000"],"Env":["MLF_RUN=%s"],"Labels":{"mlfnode.token":%q},"HostConfig":{"NetworkMode":"none"}}`,
				dockertest.Image, run, o.Token)
			if err := errors.Join(e.Do("POST", "/containers/create?name="+run, strings.NewReader(body), nil),
				e.Do("POST", "/containers/"+run+"/start", nil, nil)); err != nil {
				t.Fatal(err)
			}
			if n, err := docker.Reap(context.Background(), o, logTo(t)); n != 1 || err != nil {
				t.Errorf("reap: got %d, %v; want 1", n, err)
			}
			if folders, _ := filepath.Glob(filepath.Join(o.Dir, "*")); len(folders) != 0 {
				t.Errorf("got the folders %v, want none", folders)
			}
			eventually(t, "the container to end", func() bool {
				var c struct{ State struct{ Running bool } }
				return e.Do("GET", "/containers/"+run+"/json", nil, &c) != nil || !c.State.Running
			})
			_ = e.Do("DELETE", "/containers/"+run+"?force=1", nil, nil) // the same engine no longer has it
		})
	}
}

// TestMissingEngineIsReported checks that no engine is looked for without need, and what is
// reported about a missing one.
func TestMissingEngineIsReported(t *testing.T) {
	o := docker.Options{Settings: docker.Settings{Socket: "unix:///nowhere/docker.sock"},
		Token: "t", Dir: filepath.Join(t.TempDir(), "runs")}
	x := docker.New(o, logTo(t))
	defer x.Close()
	expect(t, run(t, x, attempt(t, "exit 0")), grid.ClassEngine, 126,
		"no container engine answers: unix:///nowhere/docker.sock")
	if n, err := docker.Reap(context.Background(), o, logTo(t)); n != 0 || err != nil {
		t.Errorf("reap: got %d, %v; want nothing to do", n, err)
	}
}

// TestConcurrentStartsAndStops starts and stops many slots at all moments of a container's life.
func TestConcurrentStartsAndStops(t *testing.T) {
	e := docker.Shared.Engine(t)
	o := options(t, e)
	x := docker.New(o, logTo(t))
	defer x.Close()
	var all sync.WaitGroup
	for i := range 16 {
		a := attempt(t, "echo x; sleep 1000")
		all.Go(func() {
			s, err := x.Slot()
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			ctx, cancel := context.WithCancelCause(t.Context())
			timer := time.AfterFunc(time.Duration(i)*60*time.Millisecond, func() { cancel(executor.ErrCancelled) })
			defer timer.Stop()
			if out := s.Run(ctx, a); out.Class != grid.ClassCancel {
				t.Errorf("got class %q, %q; want cancelled", out.Class, out.Reason)
			}
		})
	}
	all.Wait()
	nothingLeft(t, e, o)
}
