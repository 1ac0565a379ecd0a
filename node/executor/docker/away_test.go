package docker_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mlfnode/grid"
	"mlfnode/node/executor"
	"mlfnode/node/executor/docker"
	"mlfnode/node/executor/docker/dockertest"
)

// tree returns an attempt of a script whose processes can be seen from outside.
func tree(t *testing.T, script string) *executor.Attempt {
	t.Helper()
	a := attempt(t, "exec 9>alive; "+script)
	if err := syscall.Mkfifo(filepath.Join(a.Dir, "alive"), 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

// watchTree returns a function that fails the test if a process of the tree is alive when it is
// called: each process holds a fifo open.
func watchTree(t *testing.T, a *executor.Attempt) func() {
	t.Helper()
	fd, err := syscall.Open(filepath.Join(a.Dir, "alive"), syscall.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	return func() {
		t.Helper()
		if n, err := syscall.Read(fd, make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("the program goes on (read %d bytes, %v)", n, err)
		}
	}
}

// TestAttemptEndsWhenTheEngineStaysAway stops an engine that does not come back within the outage
// timeout.
func TestAttemptEndsWhenTheEngineStaysAway(t *testing.T) {
	t.Parallel()
	e := dockertest.New(t)
	o := options(t, e)
	o.OutageTimeout = 500 * time.Millisecond
	x := docker.New(o, logTo(t))
	defer x.Close()
	a := tree(t, "echo >ready; sleep 1000 & sleep 1000")
	gone := watchTree(t, a)
	ends := begin(t, x, a)
	e.Signal(syscall.SIGKILL) // its containers survive
	out := end(t, ends)
	gone()
	// the code depends on whether the engine had reported the start
	if out.Class != grid.ClassEngine || !strings.Contains(out.Reason, "500ms") {
		t.Errorf("got %+v, want class engine for want of patience", out)
	}
	expect(t, run(t, x, attempt(t, "exit 0")), grid.ClassEngine, 126, "did not answer")
	if err := e.Start(); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, x, attempt(t, "exit 6")), grid.ClassExit, 6, "")
	nothingLeft(t, e, o)
}

// TestHungEngineBlocksNoAttempt uses an engine that accepts requests and answers none: a program
// that ends during that time does not block its attempt forever, and one that keeps running is left
// alone.
func TestHungEngineBlocksNoAttempt(t *testing.T) {
	t.Parallel()
	e := dockertest.New(t)
	o := options(t, e)
	o.OutageTimeout = 5 * time.Second
	x := docker.New(o, logTo(t))
	defer x.Close()
	short, long := attempt(t, waiting+"exit 3"), attempt(t, waiting+"exit 4")
	ends := []<-chan executor.Outcome{begin(t, x, short), begin(t, x, long)}
	defer syscall.Kill(e.PID(), syscall.SIGCONT)
	if err := syscall.Kill(e.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	touch(t, short, "go")
	expect(t, end(t, ends[0]), grid.ClassEngine, grid.NoExit, "away for longer than 5s")
	if err := syscall.Kill(e.PID(), syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the engine to answer", func() bool { return e.Do(http.MethodGet, "/info", nil, nil) == nil })
	touch(t, long, "go")
	expect(t, end(t, ends[1]), grid.ClassExit, 4, "")
	nothingLeft(t, e, o)
}

// TestContainerOutlivesAnEngineThatHangs uses an engine that hangs before anybody waits for the end
// of the container that it has started: what runs in the container is left alone for longer than
// the outage timeout.
func TestContainerOutlivesAnEngineThatHangs(t *testing.T) {
	t.Parallel()
	e := docker.Shared.Engine(t)
	o := options(t, e)
	f := &front{hangs: true, back: make(chan struct{})}
	o.Socket, o.OutageTimeout = f.listen(t, e), 500*time.Millisecond
	said := &hangs{}
	x := docker.New(o, slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), said), nil)))
	defer x.Close()
	a := attempt(t, waiting+"exit 4")
	ends := begin(t, x, a)
	eventually(t, "several requests to be given up", func() bool { return f.hung.Load() > 3 && said.n.Load() > 0 })
	if n := said.n.Load(); n != 1 {
		t.Errorf("got %d warnings of an engine that hangs, want 1", n)
	}
	close(f.back)
	touch(t, a, "go")
	expect(t, end(t, ends), grid.ClassExit, 4, "")
	nothingLeft(t, e, o)
}

// hangs counts the log lines that report that the engine hangs.
type hangs struct{ n atomic.Int64 }

func (h *hangs) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("the container engine hangs")) {
		h.n.Add(1)
	}
	return len(line), nil
}

// TestTermReachesAllProcessesDespiteANotice cancels an attempt with a Notice signal, which only the
// main process would get: SIGTERM reaches all its processes.
func TestTermReachesAllProcessesDespiteANotice(t *testing.T) {
	everyEngine(t, noticeAndTerm)
}

func noticeAndTerm(t *testing.T, e *dockertest.Engine) {
	x := newExecutor(t, e)
	a := attempt(t, `sh -c 'trap "echo >child; exit" TERM; echo >begun; while :; do sleep 0.01; done' &
trap 'wait; exit 9' TERM; while ! test -e begun; do sleep 0.01; done; echo >ready; while :; do sleep 0.01; done`)
	a.Notice = syscall.SIGUSR1
	s, err := x.Slot()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	ends := make(chan executor.Outcome, 1)
	go func() { ends <- s.Run(ctx, a) }()
	eventually(t, "the program to begin", func() bool { return exists(a, "ready") })
	cancel(executor.ErrCancelled)
	expect(t, end(t, ends), grid.ClassCancel, 9, "")
	if !exists(a, "child") {
		t.Error("its child heard nothing")
	}
}

// TestProgramsCannotChangeTheirRecord runs a program that looks for, and tries to replace, what its
// agent reads later.
func TestProgramsCannotChangeTheirRecord(t *testing.T) {
	everyEngine(t, programsCannotChangeTheirOrder)
}

func programsCannotChangeTheirOrder(t *testing.T, e *dockertest.Engine) {
	o := options(t, e)
	x := docker.New(o, logTo(t))
	defer x.Close()
	a := attempt(t, `for d in `+o.Dir+
		`/*; do ls $d; rm $d/io/stderr; ln -s /etc/passwd $d/io/stderr; echo x >$d/order.json || echo refused; done`)
	expect(t, run(t, x, a), grid.ClassNone, 0, "")
	if out, _ := output(t, a); !strings.HasPrefix(out, "io\n") || strings.Contains(out, "order") {
		t.Errorf("got %q, want the folder of the pipes alone", out)
	}
	nothingLeft(t, e, o)
}

// front is a proxy in front of an engine. It goes away while the engine starts a container, or
// hangs once it has reported the state of a container that it started.
type front struct {
	http.Handler
	answers bool // it still answers the request to start
	hangs   bool
	away    atomic.Bool
	started atomic.Bool
	hung    atomic.Int64  // requests that were given up
	back    chan struct{} // closed when it no longer hangs
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.away.Load() {
		if !f.hangs {
			panic(http.ErrAbortHandler)
		}
		select {
		case <-f.back:
		case <-r.Context().Done():
			f.hung.Add(1)
			return
		}
	}
	f.Handler.ServeHTTP(w, r)
}

// answered inspects an answer of the engine.
func (f *front) answered(r *http.Response) error {
	if start := strings.HasSuffix(r.Request.URL.Path, "/start"); f.hangs {
		if f.started.Load() && strings.HasSuffix(r.Request.URL.Path, "/json") {
			f.away.Store(true)
		}
		f.started.CompareAndSwap(false, start)
	} else if start {
		f.away.Store(true)
		if !f.answers {
			return errors.New("away")
		}
	}
	return nil
}

// listen starts the proxy of an engine and returns its address.
func (f *front) listen(t *testing.T, e *dockertest.Engine) string {
	t.Helper()
	f.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", strings.TrimPrefix(e.Host(), "unix://"))
		}, DisableKeepAlives: true},
		FlushInterval: -1, ErrorLog: log.New(io.Discard, "", 0), ModifyResponse: f.answered,
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	dir, err := os.MkdirTemp("", "mlf-front-") // a short path: the length of socket paths is limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: f, ErrorLog: log.New(io.Discard, "", 0)}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return "unix://" + l.Addr().String()
}

// TestEngineDisappearsDuringAStart uses an engine that goes away for good after starting a
// container, before and after it reports the start: nobody has learned the PID of its process.
func TestEngineDisappearsDuringAStart(t *testing.T) {
	for name, answers := range map[string]bool{"before its answer": false, "after its answer": true} {
		t.Run(name, func(t *testing.T) {
			e := docker.Shared.Engine(t)
			o := options(t, e)
			f := &front{answers: answers}
			o.Socket, o.OutageTimeout = f.listen(t, e), 500*time.Millisecond
			x := docker.New(o, logTo(t))
			defer x.Close()
			a := tree(t, "echo >ready; sleep 1000 & sleep 1000")
			gone := watchTree(t, a)
			out := end(t, begin(t, x, a))
			gone()
			if out.Class != grid.ClassEngine || !strings.Contains(out.Reason, "500ms") {
				t.Errorf("got %+v, want class engine for want of patience", out)
			}
			f.away.Store(false)
			nothingLeft(t, e, o)
		})
	}
}
