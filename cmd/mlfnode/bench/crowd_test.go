package bench

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"mlfnode/cluster"
	"mlfnode/cluster/inventory"
	"mlfnode/cluster/trust"
	"mlfnode/grid"
	"mlfnode/grid/space"
	"mlfnode/jetstream"
	"mlfnode/jetstream/natsd"
	"mlfnode/node/api"
	"mlfnode/node/executor/executortest"
	"mlfnode/node/history"
	"mlfnode/node/master"
	"mlfnode/node/worker"
	"mlfnode/node/worker/allocator"
)

// The parts of the crowd are processes of this binary, so that memory and processor time of each
// are its own. A part is named by partVar and takes what it needs from arguments; it obeys lines on
// its standard input until that ends, and answers each with one line. With profileVar set to a
// folder, each leaves its processor profile there.
const (
	partVar    = "MLF_BENCH_PART"
	profileVar = "MLF_BENCH_PROFILE"
)

// TestMain makes the test binary a part of the crowd, or runs the benchmarks.
func TestMain(m *testing.M) {
	parts := map[string]func(context.Context, []string) error{"master": crowdMaster, "workers": crowdWorkers}
	name := os.Getenv(partVar)
	if name == "" {
		os.Exit(m.Run())
	}
	signal.Ignore(syscall.SIGINT) // the end of the input ends a part in good order
	if err := profiled(name, func() error { return parts[name](context.Background(), os.Args[1:]) }); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

func profiled(name string, run func() error) error {
	dir := os.Getenv(profileVar)
	if dir == "" {
		return run()
	}
	f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%s-%d.pprof", name, os.Getpid())))
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	defer pprof.StopCPUProfile()
	return run()
}

func crowdLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// obey answers each line of the standard input until it ends.
func obey(answer func(words []string) (string, error)) error {
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		text, err := answer(strings.Fields(in.Text()))
		if err != nil {
			return err
		}
		fmt.Println(text)
	}
	return in.Err()
}

// headquarters is the master of the crowd. It is wired as in node.OpenMaster, but for gossip and
// the API.
type headquarters struct {
	server  *jetstream.Server
	store   *jetstream.Store
	history *history.DB
	master  *master.Master
	nodes   atomic.Int64 // workers that are taken to be there
	beats   atomic.Int64
}

// crowdMaster is the part that is the master; its argument is the state folder. It understands:
//
//	nodes N    from now on there are N workers
//	sweep N    run a sweep of N trials: answers with the time it took, in nanoseconds
//	beats      answers with the number of beats so far
//	events     answers with the number of stored batches of events so far
//	settle     give unused memory back to the system, as a real master does some time after its start
func crowdMaster(ctx context.Context, args []string) error {
	h := &headquarters{}
	if err := h.open(ctx, args[0]); err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- h.master.Run(ctx) }()
	<-h.master.Ready()
	fmt.Println(h.server.Addr())
	err := obey(func(words []string) (string, error) { return h.answer(ctx, words) })
	stop()
	err = errors.Join(err, <-ended)
	h.history.Close()
	h.store.Close()
	h.server.Close()
	return err
}

func (h *headquarters) open(ctx context.Context, dir string) error {
	authority, err := trust.OpenAuthority(filepath.Join(dir, "trust"), nil)
	if err != nil {
		return err
	}
	id, err := authority.IssueSelf("m")
	if err != nil {
		return err
	}
	h.server, err = jetstream.Start(jetstream.Config{
		Dir: filepath.Join(dir, "jetstream"), Node: "m", Logger: crowdLog(),
		Listen: &natsd.Listen{Host: "127.0.0.1", TLS: id.NATSServer(authority.Known),
			Peer: func(s tls.ConnectionState) (grid.NodeID, error) {
				node, _, err := trust.PeerOf(s)
				return node, err
			}},
	})
	if err != nil {
		return err
	}
	if h.store, err = h.server.OpenStore(ctx); err != nil {
		return err
	}
	if h.history, err = history.Open(filepath.Join(dir, "history.db"), crowdLog()); err != nil {
		return err
	}
	each := allocator.Node{CPUs: slots * grid.One, Memory: crowdMemory}
	h.master = master.New(master.Config{
		Store: h.store, History: h.history, Logger: crowdLog(), LeaseTrials: true, Nodes: h.view(),
		Capacity: master.Capacity{Slots: func(r grid.Resources) int { return int(h.nodes.Load()) * each.Slots(r) }},
	})
	return nil
}

// view is what the master is told in the place of gossip: all workers are alive.
func (h *headquarters) view() *master.Nodes {
	return &master.Nodes{
		Members: func() []cluster.Member {
			all := make([]cluster.Member, h.nodes.Load())
			for i := range all {
				all[i] = cluster.Member{Node: crowdName(i), State: cluster.Alive,
					Self: cluster.Self{Roles: []grid.NodeRole{grid.Worker}, CPUs: slots}}
			}
			return all
		},
		Refused:        func(context.Context, grid.NodeID) bool { return false },
		Disconnections: h.server.Disconnections,
		Scheduling: master.Scheduling{
			Drain:      func(grid.NodeID) (bool, bool, string) { return false, false, "" },
			Quarantine: func(grid.NodeID, string) {},
			Withheld:   func(grid.NodeID) map[grid.Scope]string { return nil },
		},
		Keys: func() uint64 { // asked once for each beat
			h.beats.Add(1)
			return 0
		},
		CrashLimit: 3,
	}
}

func (h *headquarters) answer(ctx context.Context, words []string) (string, error) {
	switch words[0] {
	case "nodes":
		n, err := strconv.ParseInt(words[1], 10, 64)
		h.nodes.Store(n)
		h.master.Kick()
		return "", err
	case "sweep":
		n, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil {
			return "", err
		}
		took, err := h.sweep(ctx, n)
		return strconv.FormatInt(took.Nanoseconds(), 10), err
	case "events":
		_, last, err := h.store.Events.Bounds(ctx)
		return strconv.FormatUint(last, 10), err
	case "beats":
		return strconv.FormatInt(h.beats.Load(), 10), nil
	case "settle":
		debug.FreeOSMemory()
		return "", nil
	}
	return "", fmt.Errorf("unknown word %q", words[0])
}

// sweep runs a sweep to its end; each trial must have one result.
func (h *headquarters) sweep(ctx context.Context, n int64) (time.Duration, error) {
	axis, err := space.ParseSet(fmt.Sprintf("i=0:%d", n))
	if err != nil {
		return 0, err
	}
	points, err := space.New([]space.Axis{axis}, nil)
	if err != nil {
		return 0, err
	}
	task := grid.Task{Name: "bench", Command: []string{"true"}, Resources: grid.Resources{CPUs: grid.One},
		Retries: grid.DefaultRetries()}
	begin := time.Now()
	r, err := h.master.Submit(ctx, &api.Submit{Project: "bench", Task: task, Space: points})
	if err != nil {
		return 0, err
	}
	ended := time.NewTicker(time.Millisecond)
	defer ended.Stop()
	for range ended.C {
		if r, _ := h.master.Sweep(r.Sweep.ID); r.Sweep != nil && !r.Sweep.Active() {
			break
		}
	}
	took := time.Since(begin)
	counts, err := h.history.Counts(ctx, r.Sweep.ID)
	if err == nil && counts.Succeeded != n {
		err = fmt.Errorf("%d of %d trials succeeded", counts.Succeeded, n)
	}
	return took, err
}

const crowdMemory = 1 << 34 // of one worker

func crowdName(i int) grid.NodeID { return grid.NodeID(fmt.Sprintf("w%03d", i)) }

// crowdWorkers is the part that is all workers: each with its own certificate, its own connection
// and its own folder. Its arguments are the folder of their folders, the master's address, and how
// many there are.
func crowdWorkers(ctx context.Context, args []string) error {
	dir, address := args[0], args[1]
	n, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	ended := make(chan error, n)
	for i := range n {
		w, closeStore, err := crowdWorker(ctx, filepath.Join(dir, string(crowdName(i))), address)
		if err != nil {
			return fmt.Errorf("worker %d: %w", i, err)
		}
		go func() {
			err := w.Run(ctx)
			closeStore()
			ended <- err
		}()
	}
	fmt.Println("ready")
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	stop()
	for range n {
		err = errors.Join(err, <-ended)
	}
	return err
}

// noFiles are bundles and artifacts of trials that have none.
type noFiles struct{ worker.FileStore }

func crowdWorker(ctx context.Context, dir, address string) (*worker.Worker, func(), error) {
	id, err := trust.LoadIdentity(filepath.Join(dir, "trust"))
	if err != nil {
		return nil, nil, err
	}
	store, err := jetstream.Connect(ctx, jetstream.ConnectConfig{
		Node: id.Node, TLS: id.Client(), Logger: crowdLog(), Addresses: func() []string { return []string{address} },
	})
	if err != nil {
		return nil, nil, err
	}
	w, err := worker.New(worker.Config{
		Node: id.Node, Dir: dir, Master: store, Files: noFiles{},
		Machine:  inventory.Machine{CPUs: slots, Memory: crowdMemory},
		Programs: worker.Programs{Executor: executortest.Instant{}},
		Reports:  worker.Reports{Heartbeats: true},
		Logger:   crowdLog(),
	})
	if err == nil {
		err = w.Recover(ctx)
	}
	if err != nil {
		store.Close()
		return nil, nil, err
	}
	return w, store.Close, nil
}
