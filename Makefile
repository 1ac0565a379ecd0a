# mlfnode. `make` alone lists the targets.

GO      ?= go
BIN     := bin/mlfnode
# go-nvml calls functions of NVIDIA's library that are marked as old.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations
TIMEOUT ?= 30m
# How many tests run at a time that mostly wait: for nodes that are away, for programs that run. Those that look at the clock run alone.
WAITING := -parallel 3
# On a busy machine, tests that wait can fail: failed tests run once more, alone, and both results are printed.
TESTS   := $(GO) tool gotestsum --format standard-quiet --hide-summary skipped --rerun-fails=1 --rerun-fails-max-failures 6 \
	--rerun-fails-run-root-test --rerun-fails-abort-on-data-race
# Benchmarks print a table; BENCH_VERBOSE=1 also shows what they log, which is otherwise shown only for those that fail.
BENCH   := $(GO) run ./cmd/mlfnode/bench/benchtable $(GO) test -v -run '^$$'
# How long the benchmark of the page's memory keeps pages open.
PAGE_TIME ?= 2m
# Packages that the race detector runs on: everything with goroutines.
RACE    := ./cmd/... ./node/... ./jetstream/... ./cluster/... ./projects/... ./grid/...

.DEFAULT_GOAL := help
.PHONY: help build release demo test chaos race fuzz lint bench dev docs clean vendor install-deps python-test

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# Paths of this machine are left out of a release alone: with -trimpath every package is compiled for the program, and again for tests.
build: ## build bin/mlfnode; RELEASE=1.4.0 names its version
	@mkdir -p bin
	$(GO) build $(if $(RELEASE),-trimpath -ldflags "-X main.release=$(RELEASE)") -o $(BIN) ./cmd/mlfnode

release: build ## also build the programs for other machines that `mlfnode up` may meet, beside bin/mlfnode
	@for arch in amd64 arm64; do \
		echo "bin/mlfnode-linux-$$arch"; \
		CGO_ENABLED=0 GOOS=linux GOARCH=$$arch $(GO) build -trimpath -ldflags "-s -w $(if $(RELEASE),-X main.release=$(RELEASE))" \
			-o bin/mlfnode-linux-$$arch ./cmd/mlfnode || exit 1; \
	done

demo: build ## train real models over a parameter grid on this machine and print the result table
	$(BIN) sweep chainer

install-deps:
	@sh .ci/install

test: install-deps build python-test ## install what the tests need, then run them all
	$(GO) vet ./...
	$(TESTS) --packages "$$($(GO) list ./... | grep -v -e /guarantees -e /overssh)" -- -p 3 -timeout $(TIMEOUT)
	$(TESTS) --packages ./cmd/mlfnode/overssh -- -count=1 $(WAITING) -timeout $(TIMEOUT) # it builds the program itself, which the cache of results does not see
	$(TESTS) --packages ./cmd/mlfnode/guarantees -- -count=1 $(WAITING) -timeout $(TIMEOUT) # likewise, and alone, since it looks at the clock

python-test: # the examples' tests train models on one core each
	@$(MAKE) --no-print-directory -j3 --output-sync $(addprefix python-test-,chainer bowcnn template)

python-test-%:
	@echo "python tests of projects/$*"
	@cd projects/$* && PYTHONDONTWRITEBYTECODE=1 python3 -m unittest -q

chaos: ## break a cluster of five hosts 30 times at random; CHAOS_SEED=N repeats a run
	LONG=1 $(GO) test -count=1 -v -timeout 30m -run '^TestChaos$$' ./cmd/mlfnode/guarantees

race: ## run the tests under the race detector
	$(GO) test -race -short -timeout $(TIMEOUT) $(RACE)

fuzz: ## fuzz every parser for a minute each
	@sh .ci/fuzz 60s

vendor: ## fetch the libraries of the monitor's page again, as their lock file names them
	@sh .ci/vendor

docs: ## make docs/reference.md, and man pages in build/man, of what the commands say of themselves
	@mkdir -p build/man
	$(GO) test -count=1 -run '^TestReference$$' ./cmd/mlfnode -reference -man "$(CURDIR)/build/man"

lint: ## gofmt and vet
	@test -z "$$(gofmt -l cmd node cluster jetstream grid projects)" || { gofmt -l cmd node cluster jetstream grid projects; exit 1; }
	$(GO) vet ./...

bench: build ## measure rates, latencies and memory, side by side with bare loops; PAGE_TIME=1h keeps pages open for so long
	$(BENCH) -bench . -benchtime 1x -timeout 30m ./cmd/mlfnode/bench
	PAGE_TIME=$(PAGE_TIME) $(BENCH) -bench . -benchtime 1x -timeout 3h ./cmd/mlfnode/browser
	$(BENCH) -bench Container -benchtime 20x ./node/executor/docker
	$(BENCH) -bench Restart -benchtime 5x ./node/history

dev: build ## run a cluster of three nodes on this machine, in a temporary folder
	@sh .ci/dev

clean: ## remove what was built
	rm -rf bin build
