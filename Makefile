# SPDX-License-Identifier: Apache-2.0
#
# One entry point per task; what a task does stands in the script it calls. `make help` lists them.

TARGET  ?= x86_64-unknown-linux-musl
# What is installed. `make test` and `make demo` use the profile `fast` (Cargo.toml says why).
PROFILE ?= release
PREFIX  ?= /usr/local
DESTDIR ?=
CARGO   ?= cargo
V       ?=
SHIM    ?=
LONG    ?=

BIN      = target/$(TARGET)/$(PROFILE)
BINDIR   = $(DESTDIR)$(PREFIX)/bin
MANDIR   = $(DESTDIR)$(PREFIX)/share/man/man8
MANPAGES = $(wildcard docs/man/*.8)
# Where bash, zsh and fish look for completions.
SHARE    = $(DESTDIR)$(PREFIX)/share
BASHDIR  = $(SHARE)/bash-completion/completions
ZSHDIR   = $(SHARE)/zsh/site-functions
FISHDIR  = $(SHARE)/fish/vendor_completions.d
# The toolchain's own linker, which needs no C compiler of the other machine's.
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_MUSL_LINKER ?= rust-lld
ENV      = TARGET=$(TARGET) CARGO=$(CARGO) V=$(V)

.DEFAULT_GOAL := build
.PHONY: help demo engines build test test-unit test-native-v1 test-native-v2 test-uml test-uml-systemd test-shim test-kernel test-aarch64 test-twins kernels criu-test kubernetes \
        conformance twins oci-validation soak shim-test upgrade-test sandbox-test shim-twins containerd-test fuzz faults lint yardstick fmt check-aarch64 bench bench-criu bench-shim bench-sandbox scale attack mutants sbom reproducible dist dist-test docs-test lab man \
        completions flags install uninstall clean

help: ## this list
	@sed -n 's/^\([a-z][a-z0-9-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20
	@echo "variables: PREFIX=$(PREFIX) DESTDIR= PROFILE=$(PROFILE) TARGET=$(TARGET) BENCH=--quick V=1"

demo: ## set up, build, and show a container from create to delete (as root, or through sudo)
	@$(ENV) demo/run

engines: ## podman, containerd and Docker run a container with corten, in a guest (sets up the full lab)
	@$(ENV) .ci/setup toolchain
	@$(ENV) LAB=full .ci/setup lab
	@$(ENV) demo/engines

build: ## the release binaries, static, in target/$(TARGET)/$(PROFILE)
	@$(ENV) .ci/setup toolchain
	@# The commit for --version: cargo does not see a new one.
	@# No path of whoever builds stays in the programs, so that two builds are the same (make reproducible).
	CORTEN_COMMIT=$${CORTEN_COMMIT:-$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)} \
	CARGO_ENCODED_RUSTFLAGS="$$(printf '%s' "$${RUSTFLAGS:+$$RUSTFLAGS }" | tr ' ' '\037'; \
		printf -- '--remap-path-prefix=%s=/cargo\037--remap-path-prefix=%s=/corten' "$${CARGO_HOME:-$$HOME/.cargo}" "$$PWD")" \
	$(CARGO) build --locked --profile $(PROFILE) --target $(TARGET) -p corten -p containerd-shim-corten-v2

test: ## set up, then every test in every environment that is here; the last line is the sum
	@$(ENV) .ci/test all

test-unit: ## unit and golden tests; needs no root
	@$(ENV) .ci/test unit

test-native-v1: ## black-box tests on the host's cgroup v1
	@$(ENV) .ci/test native-v1

test-native-v2: ## black-box tests on the host with a pure cgroup v2
	@$(ENV) .ci/test native-v2

test-uml: ## black-box tests in a User Mode Linux guest with cgroup v2
	@$(ENV) .ci/test uml

test-uml-systemd: ## the systemd driver in a guest under systemd
	@$(ENV) .ci/test uml-systemd

test-kernel: ## a minute of cases on one of Debian's kernels under QEMU, with each commit another; KERNEL=6.1
	@$(ENV) KERNEL=$(KERNEL) .ci/test kernel

test-aarch64: ## all cases on emulated aarch64 machines with Debian's arm64, and the shim under its containerd; that part of docs/kernels.md (KERNELS=5.10-arm64)
	@$(ENV) KERNELS="$(KERNELS)" .ci/kernels aarch64

kernels: ## all cases on Debian's kernels from 5.10 to the newest (KERNELS="6.1 5.10-v1"); writes docs/kernels.md
	@$(ENV) KERNELS="$(KERNELS)" .ci/kernels

test-twins: ## a short run of the twins, natively and in the guest
	@$(ENV) .ci/test twins-native-v1
	@$(ENV) .ci/test twins-native-v2
	@$(ENV) .ci/test twins-uml

test-shim: ## the short cases of the containerd shim
	@$(ENV) .ci/test shim

shim-test: ## both containerd shims, driven by a containerd of spec-tests' own; SHIM=corten|runc|PATH, LONG=1
	@$(ENV) SHIM=$(SHIM) LONG=$(LONG) .ci/shim test

upgrade-test: ## running shims go on as another program: under load, refused, back again, under containerd 1.6 to 2.1 (LONG=1: 200 times)
	@$(ENV) LONG=$(LONG) .ci/shim upgrade

sandbox-test: ## pods without a pause container: the cases of spec-tests, then one pod in both ways under containerd 2.1
	@$(ENV) .ci/shim sandbox

bench-sandbox: ## pods without and with a pause container, and on the Go shim, into docs/benchmarks-sandbox.md; PODS=20
	@$(ENV) PODS=$(PODS) .ci/shim sandbox-bench

shim-twins: ## random requests on both containerd shims, compared (docs/differences.md); RUNS=2000 SEED=10
	@$(ENV) RUNS=$(RUNS) SEED=$(SEED) .ci/shim twins

containerd-test: ## containerd 1.6, 1.7 and 2.1 run containers on the shim, natively and in the guest
	@$(ENV) SHIM=$(SHIM) .ci/shim containerd

bench-shim: build ## both containerd shims side by side, and beside two floors, into docs/benchmarks-shim.md (root, a quiet machine)
	@$(ENV) .ci/shim bench

attack: ## each attack on corten, where it must fail, and on a corten without its guard, where it must not (FILTER=S08)
	@$(ENV) FILTER="$(FILTER)" .ci/attack

mutants: ## small mistakes, made one at a time where a container is decided, and which test catches each (SAMPLE=400 SEED=1 FILTER= CASES=12)
	@$(ENV) SAMPLE="$(SAMPLE)" SEED="$(SEED)" FILTER="$(FILTER)" CASES="$(CASES)" .ci/mutants

fuzz: ## 10^6 executions of each fuzz target, led by what they reach; RUNS=N, SAVE=1 writes the corpus anew
	@$(ENV) .ci/setup toolchain
	@$(ENV) RUNS=$(RUNS) SAVE=$(SAVE) runtime/tests/fuzz/run

faults: ## the runtime is killed at every system call, and every one fails (EVERY=10 ENVS="native-v1 uml" FILTER=exec)
	@$(ENV) EVERY=$(EVERY) ENVS="$(ENVS)" FILTER="$(FILTER)" .ci/faults

soak: ## lives of containers for H hours (0.5), by the command line and through shims, with kills at random; nothing may grow (docs/reliability.md)
	@$(ENV) H=$(H) .ci/soak

criu-test: ## checkpoint and restore with corten and runc, on v1 and v2, by command line, both shims and engines (LONG=1; ENGINES=1: those alone)
	@$(ENV) LONG=$(LONG) SUITES="$(SUITES)" .ci/criu $(if $(ENGINES),engines)

kubernetes: ## a real cluster of one node, each case on corten and runc, as a table (FILTER="exec oom" WAYS= JOBS= KEEP=DIR; half an hour to build, once)
	@$(ENV) FILTER="$(FILTER)" WAYS="$(WAYS)" JOBS="$(JOBS)" KEEP="$(KEEP)" .ci/kubernetes

conformance: ## the cases with corten, runc and crun in every environment (SUT=, ENVS=, RESUME=1); writes docs/conformance.md
	@$(ENV) SUT="$(SUT)" ENVS="$(ENVS)" RESUME="$(RESUME)" .ci/conformance cases

twins: ## random containers on corten, runc and crun in every environment (RUNS=2000 SEED=10 ENVS= ONLY=)
	@$(ENV) RUNS="$(RUNS)" SEED="$(SEED)" ENVS="$(ENVS)" ONLY="$(ONLY)" .ci/twins

oci-validation: ## the OCI runtime-tools suite with corten, runc and crun (SUT=, OCI_VALIDATION=/checkout)
	@$(ENV) SUT="$(SUT)" OCI_VALIDATION="$(OCI_VALIDATION)" .ci/conformance oci

lint: ## rustfmt, clippy, shellcheck, cargo-deny (built once), aarch64, fuzz/; what is not installed is said (ADVISORY_DB=PATH)
	@$(ENV) .ci/setup toolchain
	@$(ENV) ADVISORY_DB="$(ADVISORY_DB)" .ci/lint all

yardstick: ## measures the code as docs/yardstick.md says, and writes the figures into it
	@$(ENV) .ci/yardstick --write

fmt: ## format the Rust sources
	$(CARGO) fmt --all

check-aarch64: ## type-check for aarch64
	@$(ENV) .ci/lint aarch64

bench: build ## compare with crun, runc and the bare kernel work (root; BENCH=--quick); see docs/benchmarks.md
	bench/run --corten $(BIN)/corten $(BENCH)

bench-criu: build ## checkpoint and restore of corten and runc in one run, into docs/benchmarks-criu.md (root)
	bench/criu --corten $(BIN)/corten --out docs/benchmarks-criu.md

scale: build ## a thousand containers alive in containerd on corten's shim, then on its own; writes docs/scale.md (root, a quiet machine)
	@$(ENV) .ci/shim scale

sbom: ## a bill of materials (CycloneDX) for each program, into target/sbom
	@$(ENV) .ci/setup toolchain
	@$(CARGO) run --locked --quiet --target $(TARGET) -p sbom -- target/sbom $(TARGET) corten containerd-shim-corten-v2

reproducible: ## two builds of the release, from two folders, are the same byte for byte
	@$(ENV) .ci/reproducible

dist: ## .deb, .rpm and tarball for x86_64 and aarch64, with checksums, in target/dist (root, for the tools; ARCHES= MAINTAINER=)
	@$(ENV) ARCHES="$(ARCHES)" MAINTAINER="$(MAINTAINER)" .ci/dist build

dist-test: ## builds the packages, then: lintian, the same twice, install, upgrade, remove, and in a guest over running containers (PARTS= MADE=1)
	@$(ENV) ARCHES="$(ARCHES)" MAINTAINER="$(MAINTAINER)" PARTS="$(PARTS)" MADE="$(MADE)" .ci/dist test

docs-test: ## executes docs/engines/ and docs/packages.md as written, with the engines of Debian bookworm, trixie and sid, in guests (PAGES="docker podman" SUITES=sid V=1)
	@$(ENV) PAGES="$(PAGES)" SUITES="$(SUITES)" .ci/docs-test

lab: ## the Debian trees, peers and guest kernel that the tests use; LAB=full adds containerd, docker, podman
	@$(ENV) .ci/setup toolchain
	@$(ENV) LAB=$(LAB) .ci/setup lab

man: ## write the manual pages anew, from the program's help and docs/man/*.more
	@$(ENV) .ci/setup toolchain
	$(CARGO) build --locked --quiet --target $(TARGET) -p corten
	docs/man/make target/$(TARGET)/debug/corten

completions: ## write the completions of bash, zsh and fish anew, from the program's help
	@$(ENV) .ci/setup toolchain
	$(CARGO) build --locked --quiet --target $(TARGET) -p corten
	docs/completions/make target/$(TARGET)/debug/corten

flags: ## write the table of flags in docs/compatibility.md anew, from the helps of corten and of the lab's runc and crun
	@$(ENV) .ci/setup toolchain
	CORTEN_BLESS=1 $(CARGO) test --locked --quiet --target $(TARGET) -p corten --test flags

install: ## binaries, manual pages and completions below PREFIX
	@test -x $(BIN)/corten -a -x $(BIN)/containerd-shim-corten-v2 || { echo "run 'make build' first (as yourself, not as root)" >&2; exit 1; }
	install -d $(BINDIR) $(MANDIR)
	install -m 755 $(BIN)/corten $(BIN)/containerd-shim-corten-v2 $(BINDIR)/
	install -m 644 $(MANPAGES) $(MANDIR)/
	install -d $(BASHDIR) $(ZSHDIR) $(FISHDIR)
	install -m 644 docs/completions/corten.bash $(BASHDIR)/corten
	install -m 644 docs/completions/_corten $(ZSHDIR)/
	install -m 644 docs/completions/corten.fish $(FISHDIR)/

uninstall: ## what install put there
	rm -f $(BINDIR)/corten $(BINDIR)/containerd-shim-corten-v2 $(addprefix $(MANDIR)/,$(notdir $(MANPAGES)))
	rm -f $(BASHDIR)/corten $(ZSHDIR)/_corten $(FISHDIR)/corten.fish

clean: ## build results; the lab stays (rm -r ~/.cache/corten-lab)
	$(CARGO) clean
