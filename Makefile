# What people and CI run. `make run` and `make test` share one release build; both install what Debian packages are missing.

CONFIGURATION := release
SWIFT := swift
BUILD := .build/$(CONFIGURATION)
# Everything that is formatted and linted.
SOURCES := Package.swift Sources Tests Examples Benchmarks

RANDOM_TESTS := 'CisternEngineTests|CisternLSMTests|CisternClientTests|CisternFileSystemTests|CisternMetadataTests'
ENGINE_TESTS := 'CisternEngineTests|CisternLSMTests|CisternFileSystemTests|CisternPrimitivesTests'
SANITIZER := address
# No leaks: tests leave engines in the middle of their work, as a crash does, and what such an engine has queued holds the engine.
ASAN_OPTIONS := detect_leaks=0
# The first report ends the program.
TSAN_OPTIONS := halt_on_error=1

.PHONY: help run test test-page flink flink-jar test-flink lint format layers swifterror protos soak sanitize fuzz bench thresholds clean build tests packages packages-test packages-protos

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: packages build ## the flights job: a state server, workers, a kill, a restore, the tables. ARGS="--help" lists its options
	@$(BUILD)/cistern example flights $(ARGS)

# One test after the other: together they keep the few threads of the test process so busy that deadlines pass elsewhere,
# and the end-to-end tests, which take most of the time, use all cores by themselves.
test: packages-test tests ## all tests, release build
	$(SWIFT) test -c $(CONFIGURATION) --skip-build --no-parallel

test-page: packages-test tests ## the status page in headless Chromium, which is installed when it is missing
	@.ci/install-packages chromium
	$(SWIFT) test -c $(CONFIGURATION) --skip-build --no-parallel --filter aBrowserShowsTheTreesAndKeepsThePageFresh

flink: build ## two jobs on a local Flink cluster with its state in Cistern, a kill, the tables. ARGS="--kill-server --rate 25000 --keep"
	@Integrations/flink/build.sh demo $(ARGS)

flink-jar: ## the state backend for Apache Flink: .build-flink/cistern-flink.jar. Fetches Flink from PyPI once
	@Integrations/flink/build.sh jar

test-flink: build ## tests of the Flink integration against the built server. ARGS select: "--select-class io.cistern.client.TreeSessionTest"
	@Integrations/flink/build.sh test $(ARGS)

lint: ## swift format, strict
	$(SWIFT) format lint --strict --parallel -r $(SOURCES)

layers: ## who may import whom
	@.ci/check-layers

swifterror: build ## the built program does not show a known bug of the compiler
	@.ci/install-packages binutils
	@.ci/check-swifterror $(BUILD)/cistern

format: ## formats the sources in place
	$(SWIFT) format -i --parallel -r $(SOURCES)

protos: packages-protos ## generates Sources/CisternWireMessages from proto-spec
	proto-spec/generate.sh

soak: packages-test tests ## longer hunts: SOAK_SEEDS seeds of random tests, SOAK_SIMULATIONS and SOAK_HISTORIES of the log, the flights job with both kills SOAK_RUNS times
	$(BUILD)/cistern-simulator --count $${SOAK_SIMULATIONS:-10000}
	CISTERN_SEEDS=$${SOAK_HISTORIES:-60} $(SWIFT) test -c $(CONFIGURATION) --skip-build --no-parallel --filter nothingThatWasAcknowledgedIsLost
	CISTERN_SEEDS=$${SOAK_SEEDS:-500} $(SWIFT) test -c $(CONFIGURATION) --skip-build --no-parallel --filter $(RANDOM_TESTS)
	@for run in $$(seq $${SOAK_RUNS:-20}); do \
	  echo "soak run $$run"; \
	  $(BUILD)/cistern example flights --kill-server --plain $(ARGS) >$(BUILD)/soak.log 2>&1 || { cat $(BUILD)/soak.log; exit 1; }; \
	done

# In a debug build, where nothing is optimised away. A build folder each: everything under it is compiled with the sanitizer, and
# with a condition of its name (CISTERN_ADDRESS_SANITIZER), which has the pools tell it what is nobody's memory.
sanitize: packages-test ## the engine's tests under a sanitizer: SANITIZER=address or thread
	@case "$(SANITIZER)" in address|thread) ;; *) echo "no sanitizer '$(SANITIZER)': SANITIZER=address or thread"; exit 1;; esac
	ASAN_OPTIONS=$(ASAN_OPTIONS) TSAN_OPTIONS=$(TSAN_OPTIONS) CISTERN_SEEDS=$${CISTERN_SEEDS:-4} \
	  $(SWIFT) test --sanitize=$(SANITIZER) -Xswiftc -DCISTERN_$(shell echo $(SANITIZER) | tr a-z A-Z)_SANITIZER \
	  --scratch-path .build-$(SANITIZER) --no-parallel --filter $(ENGINE_TESTS)

# The fuzzer and the address sanitizer; the build tool knows how to link one of them, so the other one is named to the compilers.
FUZZ_BUILD := -c release --scratch-path .build-fuzz --product cistern-fuzz --sanitize=fuzzer \
  -Xswiftc -sanitize=fuzzer,address -Xcc -fsanitize=address -Xswiftc -DCISTERN_ADDRESS_SANITIZER

fuzz: packages ## every decoder under libFuzzer: TARGET="table log" for some of them, FUZZ_SECONDS=60 for each
	CISTERN_FUZZ=1 $(SWIFT) build $(FUZZ_BUILD)
	@.ci/fuzz .build-fuzz/release/cistern-fuzz $${FUZZ_SECONDS:-60} $(TARGET)

bench: packages ## ours and peers in turn: make bench SUITE=engine|compaction|codec|remote|checkpoint|flink|changelog [QUICK=1]; see Benchmarks/README.md
ifeq ($(SUITE),flink)
	$(SWIFT) build -c $(CONFIGURATION) --product cistern
	@Integrations/flink/build.sh bench $(if $(QUICK),--quick) $(ARGS)
else ifeq ($(SUITE),remote)
	@.ci/install-packages redis-server
	$(SWIFT) build -c $(CONFIGURATION) --product cistern
	$(SWIFT) build -c $(CONFIGURATION) --product cistern-bench-remote
	$(BUILD)/cistern-bench-remote $(if $(QUICK),--quick) $(ARGS)
else ifeq ($(SUITE),checkpoint)
	$(SWIFT) build -c $(CONFIGURATION) --product cistern
	$(SWIFT) build -c $(CONFIGURATION) --product cistern-bench-remote
	taskset -c 1 $(BUILD)/cistern-bench-remote checkpoint $(if $(QUICK),--quick) $(ARGS)
else ifeq ($(SUITE),changelog)
	@.ci/install-packages etcd-server
	$(SWIFT) build -c $(CONFIGURATION) --product cistern
	$(SWIFT) build -c $(CONFIGURATION) --product cistern-bench-changelog
	$(BUILD)/cistern-bench-changelog $(if $(QUICK),--quick) $(ARGS)
else
	@case "$(SUITE)" in engine|compaction|codec) ;; \
	  *) echo "no suite '$(SUITE)': SUITE=engine, compaction, codec, remote, checkpoint, flink or changelog"; exit 1;; esac
	$(SWIFT) build -c $(CONFIGURATION) --product cistern-bench
	$(BUILD)/cistern-bench --suite $(SUITE) $(if $(QUICK),--quick) $(ARGS)
endif

thresholds: packages ## instructions of hot operations against Benchmarks/Thresholds (needs valgrind)
	@.ci/install-packages valgrind binutils
	$(SWIFT) build -c $(CONFIGURATION) --product cistern-bench
	@Benchmarks/Thresholds/check.sh $(BUILD)/cistern-bench

clean: ## removes the build
	rm -rf .build .build-address .build-thread .build-fuzz .build-flink

build:
	$(SWIFT) build -c $(CONFIGURATION) --product cistern

tests:
	$(SWIFT) build -c $(CONFIGURATION) --build-tests

packages:
	@.ci/install-packages libzstd-dev liblz4-dev pkg-config

packages-test:
	@.ci/install-packages libzstd-dev liblz4-dev pkg-config sqlite3 etcd-server

packages-protos:
	@.ci/install-packages protobuf-compiler
	@command -v protoc-gen-swift >/dev/null || { echo "protoc-gen-swift is missing: build it from apple/swift-protobuf"; exit 1; }
