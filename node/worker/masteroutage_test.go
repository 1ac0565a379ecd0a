package worker

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"mlfnode/cluster/inventory"
	"mlfnode/grid"
	"mlfnode/jetstream"
	"mlfnode/jetstream/natsd"
	"mlfnode/node/executor"
)

// remoteHarness is the worker of node w on the network; the test stops and starts its master.
type remoteHarness struct {
	*harness
	server  *jetstream.Server
	cfg     jetstream.Config
	mu      sync.Mutex              // guards the store, which is replaced
	remote  *jetstream.MasterClient // the worker's
	program program
}

func newRemoteHarness(t *testing.T, limits jetstream.Limits, p program) *remoteHarness {
	t.Helper()
	pair := selfSigned(t)
	s := &remoteHarness{harness: &harness{t: t, dir: t.TempDir()}, program: p, cfg: jetstream.Config{
		Dir: filepath.Join(t.TempDir(), "jetstream"), Node: "m", Logger: logger(t), Limits: limits,
		Listen: &natsd.Listen{
			Host: "127.0.0.1", TLS: pair, Peer: func(tls.ConnectionState) (grid.NodeID, error) { return "w", nil },
		},
	}}
	s.startMaster()
	t.Cleanup(func() { s.stopMaster() })
	ctx, stop := context.WithTimeout(t.Context(), testTimeout)
	defer stop()
	var err error
	s.remote, err = jetstream.Connect(ctx, jetstream.ConnectConfig{
		Node: "w", TLS: pair, Logger: logger(t),
		Addresses: func() []string { return []string{net.JoinHostPort("127.0.0.1", portText(s.cfg.Listen.Port))} },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.remote.Close)
	s.restartWorker()
	return s
}

func portText(port int) string { return big.NewInt(int64(port)).String() }

// restartWorker makes the next agent of the node.
func (s *remoteHarness) restartWorker() {
	s.t.Helper()
	w, err := New(Config{
		Node: "w", Dir: s.dir, Master: s.remote, Files: s, Programs: Programs{Executor: s.program},
		Machine: inventory.Machine{CPUs: 4, Memory: 8 << 30}, Logger: logger(s.t),
	})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(w.trials.attempts.spools.close)
	w.stopTimeout = 100 * time.Millisecond
	s.Worker = w
}

// Bundle and PutArtifacts stand in for the master's API.
func (s *remoteHarness) Bundle(ctx context.Context, digest string) (io.ReadCloser, error) {
	return s.files().Bundle(ctx, digest)
}

func (s *remoteHarness) PutArtifacts(ctx context.Context, id grid.TrialID, run string, r io.Reader) error {
	return s.files().PutArtifacts(ctx, id, run, r)
}

func (s *remoteHarness) files() *jetstream.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.harness.store
}

// startMaster starts the master's store; away stops it.
func (s *remoteHarness) startMaster() {
	s.t.Helper()
	var err error
	if s.server, err = jetstream.Start(s.cfg); err != nil {
		s.t.Fatal(err)
	}
	if s.cfg.Listen.Port == 0 { // the worker uses it from now on
		s.cfg.Listen.Port = s.server.Addr().(*net.TCPAddr).Port
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.store, err = s.server.OpenStore(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

func (s *remoteHarness) stopMaster() {
	s.store.Close()
	s.server.Close()
}

// artifactContent returns the only file of the artifacts of a run, which must be listed once.
func (s *remoteHarness) artifactContent(e grid.Event, id grid.SweepID) string {
	s.t.Helper()
	name := grid.TrialID{Sweep: id, Index: e.Index}.ArtifactName(e.Run)
	all, err := s.store.Artifacts.List(s.t.Context(), string(id)+"/")
	if err != nil {
		s.t.Fatal(err)
	}
	found := 0
	for _, o := range all {
		if o.Name == name {
			found++
		}
	}
	if found != 1 {
		s.t.Fatalf("artifacts of %s: got %d, want 1", name, found)
	}
	r, err := s.store.Artifacts.Open(s.t.Context(), name)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Close()
	z, err := zstd.NewReader(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer z.Close()
	b, err := io.ReadAll(z)
	if err != nil {
		s.t.Fatalf("artifacts of %s: %v", name, err)
	}
	return string(b)
}

func selfSigned(t *testing.T) *tls.Config {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "w"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour),
		IsCA:     true, BasicConstraintsValid: true, DNSNames: []string{"master"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool, RootCAs: pool, ServerName: "master",
	}
}

// TestArtifactsWaitForTheMaster ends trials with artifacts while the master is away, goes away
// during the upload, or ends together with the agent: afterwards every file exists once, and the
// trials are reported with their outcomes.
func TestArtifactsWaitForTheMaster(t *testing.T) {
	const trials = 4
	noise := make([]byte, 3<<20) // several chunks, which can't be compressed
	if _, err := rand.Read(noise); err != nil {
		t.Fatal(err)
	}
	setUp := func(t *testing.T) (s *remoteHarness, r *grid.Sweep, end chan struct{}) {
		began, end := make(chan struct{}, trials), make(chan struct{})
		s = newRemoteHarness(t, jetstream.Limits{}, func(_ context.Context, a *executor.Attempt) executor.Outcome {
			began <- struct{}{}
			<-end
			write(t, filepath.Join(variable(a.Env, "MLF_OUT"), "model"), string(noise))
			return succeeded()
		})
		r = s.sweep("t-1", trials, 1, nil)
		for i := range int64(trials) {
			s.lease(r, i, i+1)
		}
		s.run()
		for range trials {
			receive(t, "a trial", began)
		}
		return s, r, end
	}
	check := func(t *testing.T, s *remoteHarness, r *grid.Sweep) {
		t.Helper()
		seen := map[int64]bool{}
		for _, e := range s.finished(r.ID, trials) {
			seen[e.Index] = true
			if e.Result.Class != grid.ClassNone || e.Result.Files.Count != 1 || e.Result.Reason != "" {
				t.Errorf("trial %d: got %+v, want a success with one file", e.Index, e.Result)
			}
			if got := s.artifactContent(e, r.ID); !strings.Contains(got, string(noise)) {
				t.Errorf("trial %d: got an archive of %d bytes without the file", e.Index, len(got))
			}
		}
		if len(seen) != trials {
			t.Errorf("results: got %d, want %d", len(seen), trials)
		}
	}
	waiting := func(s *remoteHarness) {
		eventually(s.t, "the programs have ended", func() bool { return len(s.tail.watched()) == 0 })
	}
	t.Run("away at the end", func(t *testing.T) {
		s, r, end := setUp(t)
		s.stopMaster()
		close(end)
		waiting(s)
		s.startMaster()
		check(t, s, r)
	})
	t.Run("away in the middle", func(t *testing.T) {
		s, r, end := setUp(t)
		close(end)
		eventually(t, "a chunk is stored", func() bool {
			all, err := s.store.Usage(t.Context())
			for _, u := range all {
				if u.Name == "artifacts" && u.Bytes > 1<<20 {
					return true
				}
			}
			return err != nil
		})
		s.stopMaster()
		waiting(s)
		s.startMaster()
		check(t, s, r)
	})
	t.Run("agent ends meanwhile", func(t *testing.T) {
		s, r, end := setUp(t)
		s.stopMaster()
		close(end)
		waiting(s)
		s.stop()
		s.restartWorker()
		s.startMaster()
		if err := s.recovery.run(t.Context()); err != nil {
			t.Fatal(err)
		}
		check(t, s, r)
	})
}

// TestArtifactsInAFullStore stores artifacts that do not fit. They wait; if there is room in time
// they are stored, otherwise the result says so, later trials no longer wait, and artifacts that
// fit are stored.
func TestArtifactsInAFullStore(t *testing.T) {
	sizes := map[string]int{"big-1": 3 << 20, "small-1": 1 << 10}
	set := func(t *testing.T, patience time.Duration) *harness {
		server, err := jetstream.Start(jetstream.Config{
			Dir: filepath.Join(t.TempDir(), "jetstream"), Logger: logger(t),
			Limits: jetstream.Limits{ArtifactBytes: 2 << 20},
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(server.Close)
		s := &harness{t: t, dir: t.TempDir()}
		if s.store, err = server.OpenStore(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.store.Close)
		s.Worker = s.worker(func(_ context.Context, a *executor.Attempt) executor.Outcome {
			b := make([]byte, sizes[a.Argv[0]])
			_, _ = rand.Read(b) // never fails
			write(t, filepath.Join(variable(a.Env, "MLF_OUT"), "model"), string(b))
			return succeeded()
		})
		s.trials.attempts.finisher.uploads.fullTimeout = patience
		return s
	}
	t.Run("for good", func(t *testing.T) {
		s := set(t, time.Millisecond)
		big, small := s.sweep("big-1", 3, 4, nil), s.sweep("small-1", 1, 4, nil)
		s.lease(big, 0, 3)
		s.run()
		for _, e := range s.finished(big.ID, 3) {
			if e.Result.Class != grid.ClassNone || e.Result.Files.Count != 0 ||
				!strings.Contains(e.Result.Reason, "retention.artifacts") {
				t.Errorf("trial %d: got %+v, want a success that says what to do", e.Index, e.Result)
			}
		}
		s.lease(small, 0, 1)
		if e := s.finished(small.ID, 1)[0]; e.Result.Files.Count != 1 || e.Result.Reason != "" {
			t.Errorf("small files: got %+v, want them stored", e.Result)
		}
	})
	t.Run("until there is room", func(t *testing.T) {
		s := set(t, time.Hour)
		other := strings.NewReader(strings.Repeat("x", 3<<19))
		if err := s.store.Artifacts.Put(t.Context(), "old-1/0/n.0.0", other); err != nil {
			t.Fatal(err)
		}
		sizes["mid-1"] = 1 << 20
		mid := s.sweep("mid-1", 1, 4, nil)
		s.lease(mid, 0, 1)
		s.run()
		eventually(t, "the store is found full", func() bool {
			s.trials.attempts.finisher.uploads.mu.Lock()
			defer s.trials.attempts.finisher.uploads.mu.Unlock()
			return !s.trials.attempts.finisher.uploads.fullSince.IsZero()
		})
		if err := s.store.Artifacts.DeleteAll(t.Context(), "old-1/"); err != nil {
			t.Fatal(err)
		}
		if e := s.finished(mid.ID, 1)[0]; e.Result.Files.Count != 1 || e.Result.Reason != "" {
			t.Errorf("got %+v, want the file stored once there was room", e.Result)
		}
	})
}

// TestStopWithAllSpoolsOut stops a worker on a full disk while every spool waits for its report to
// be stored.
func TestStopWithAllSpoolsOut(t *testing.T) {
	disk := mountSmallDisk(t)
	gate, began := make(chan struct{}), make(chan struct{}, 100)
	s := newHarnessOver(t, filepath.Join(disk, "store"), func(_ context.Context, a *executor.Attempt) executor.Outcome {
		select {
		case began <- struct{}{}:
		default:
		}
		<-gate
		a.Stdout.Write([]byte("hello\n"))
		return succeeded()
	})
	s.trials.attempts.spools.taken = make(chan struct{}, 8)
	r := s.sweep("t-1", 500, 1, nil)
	s.lease(r, 0, 500)
	s.run()
	receive(t, "a trial", began)
	empty := fillDisk(t, disk)
	defer empty()
	awaitRefusal(t, s.store)
	close(gate)
	eventually(
		t, "all spools are out",
		func() bool { return len(s.trials.attempts.spools.taken) == cap(s.trials.attempts.spools.taken) },
	)
	stopped := make(chan struct{})
	go func() {
		s.stop()
		close(stopped)
	}()
	receive(t, "the worker to stop", stopped)
}
