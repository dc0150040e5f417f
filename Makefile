# vmgate: `make demo` shows the main job, `make test` proves it. `make help` lists the rest.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
CARGO ?= cargo
LAB := tests/lab/lab
DEMO_BIN := target/debug/vmgate

.PHONY: acceptance nova-test ganeti-test cluster-test corpus versions-test postgresql lab-selftest lab-core faults fleet-faults help deps build probe release demo test lint unit rules readers test-browser examples-test package-test lab-test truth-tcp lab-up lab-down wire-truth bench bench-dark bench-forecast generate drift recording book install deb rpm tarball ansible-test monitoring-test static reproducible sbom fuzz deny clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

deps: ## Install the Debian packages that building and the lab need (root)
	@tests/lab/lab install
	@pkg-config --exists libvirt 2>/dev/null || tests/install libvirt-dev pkg-config

# The on-host program, linked statically so that it runs wherever only it is copied. Only its own link step is static:
# the dependencies are those of the other build.
ON_HOST := -p vmgate-onhost --bin vmgate-probe
STATIC := -C target-feature=+crt-static -C strip=symbols

build: deps ## Build vmgate (debug) and its static probe
	$(CARGO) build
	$(CARGO) rustc $(ON_HOST) -- $(STATIC)

probe: deps ## Build the static probe alone (debug)
	$(CARGO) rustc $(ON_HOST) -- $(STATIC)

# Paths of the building machine are kept out of what is passed on: the same source gives the same bytes anywhere.
release static bench: export RUSTFLAGS := --remap-path-prefix=$(CURDIR)=/vmgate --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo

release: deps ## Build the optimised binary, with the on-host program inside it
	$(CARGO) build --release --locked
	target/release/vmgate generate on-host-program >target/release/vmgate-probe
	chmod 755 target/release/vmgate-probe

demo: build ## On a fresh machine: a safe VM is migrated, an unsafe one is refused
	@tests/demo

test: lint unit rules drift lab-core ## Everything that must hold, but for the slow tests in the lab (`make lab-test`)

lint: deps ## Formatting and clippy, with and without libvirt
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	$(CARGO) clippy --all-targets --no-default-features -- -D warnings

# The tests start a server of their own, as an unprivileged user, and stop it.
postgresql:
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || tests/install postgresql

unit: build postgresql ## Unit, property and command-line tests that need no lab
	$(CARGO) test --workspace
	$(CARGO) test --workspace --lib -- --ignored

rules: build ## The tests beside the rules
	$(DEMO_BIN) rules lint
	$(DEMO_BIN) rules test

readers: build ## Reports are read by other people's parsers: SARIF's schema, JUnit, Prometheus, CSV, YAML
	@tests/readers/check

test-browser: build ## The HTML report in Chromium: axe, console, phone, print. Not in `make test`: Chromium takes minutes to install
	@tests/browser/check

examples-test: build ## The commands of the CI examples, run as they stand there
	@tests/examples/check

package-test: build ## The Debian package, installed and used in a bare root file system
	@tests/package/check debug

versions-test: build ## The release before this one, built from its commit (minutes, then cached), and this one, each with the other's documents
	$(CARGO) test --test authority versions:: -- --include-ignored

lab-selftest: build ## The lab itself: two hosts, guests, migrations there and back
	@tests/lab/selftest

corpus: ## libvirt's own schemas and tests (fetched by apt, once) as the judge of the reading; two minutes
	$(CARGO) test --test corpus -- --include-ignored

# Tests of vmgate in the lab. What takes longest is left to `make lab-test`.
LAB_TEST := eval "$$($(LAB) env)" && $(CARGO) test --test lab -- --include-ignored --test-threads=1 --skip after_every_fault
lab-core: lab-selftest ## The main job on two real hypervisor hosts, and bad input to it
	@$(LAB) up
	@$(LAB_TEST) check:: collect:: migrate:: obstacles:: qmp_door::

lab-test: lab-selftest versions-test corpus ## All tests on real hypervisor hosts, most of an hour
	@$(LAB) up
	@tests/install faketime
	@$(LAB_TEST) --skip libvirt_takes_what_vmgate_calls_go --skip dark_times_are_foretold
	@eval "$$($(LAB) env)" && $(CARGO) test --test truth_tcp -- --ignored quick

acceptance: build ## Does libvirt take what vmgate calls GO? 800 configurations between three hosts; goes on where it was; writes docs/acceptance.md
	@$(LAB) up a b d
	@command -v qemu-nbd >/dev/null || tests/install qemu-utils
	@eval "$$($(LAB) env)" && $(CARGO) test --test lab libvirt_takes_what_vmgate_calls_go -- --include-ignored --nocapture

faults: build ## Break real migrations in every way, more than an hour; writes docs/faults.md
	@$(LAB) up
	@rm -f docs/faults.md
	@eval "$$($(LAB) env)" && VMGATE_WRITE_FAULTS=1 $(CARGO) test --test lab after_every_fault_the -- --include-ignored --test-threads=1

fleet-faults: build postgresql ## Break runners and their database under campaigns on three hosts, most of an hour; writes docs/fleet-faults.md
	@$(LAB) up
	@tests/install faketime
	@rm -f docs/fleet-faults.md
	@eval "$$($(LAB) env)" && VMGATE_WRITE_FAULTS=1 $(CARGO) test --test lab after_every_fault_of_a_campaign -- --include-ignored --test-threads=1

cluster-test: build ## Real clusters of three members, one of them moved: taken out, and not; half an hour (SOFTWARE="etcd keepalived" for some)
	@tests/lab/clusters $(SOFTWARE)

nova-test: build ## With a real OpenStack Nova of two computes: keystone, placement, glance, MariaDB and RabbitMQ from Debian, 2 GiB of memory
	@tests/nova/nova up
	@tests/nova/check
	@tests/nova/nova down

ganeti-test: build ## With a real Ganeti of two nodes, from Debian
	@tests/ganeti/ganeti up
	@tests/ganeti/check
	@tests/ganeti/ganeti down

truth-tcp: build ## Do connections live as long as foretold? Eleven minutes; writes docs/truth-tcp.md
	@$(LAB) up
	$(CARGO) test --test truth_tcp -- --ignored full

lab-up: deps ## Bring the lab's two hosts up
	@$(LAB) up

lab-down: ## Take the lab down and leave nothing behind
	@$(LAB) down

wire-truth: ## Captures control protocols of the real daemons (root), and reads them; three minutes
	@tests/install frr keepalived corosync sip-tester linuxptp lldpd ucarp tcpdump
	@tests/wire/capture target/wire
	@WIRE_CAPTURES=$(CURDIR)/target/wire $(CARGO) test -p vmgate-probe control::tests::daemons

bench: release ## Speed and memory: rules, start-up, a whole check
	@$(LAB) up
	@eval "$$($(LAB) env)" && benches/process
	@$(CARGO) bench --bench reports --bench rules --bench flows --bench domain
	@$(CARGO) bench -p vmgate-hook --bench hook

bench-dark: build probe ## Foretell the silence of 68 real moves over ten kinds of network, then make them; writes docs/dark-measured.md
	@$(LAB) up
	@eval "$$($(LAB) env)" && VMGATE_BENCH_MOVES=$(MOVES) $(CARGO) test --test lab dark_times_are_foretold -- --include-ignored --nocapture

RESULTS := benches/forecast/results
FORECAST := $(CARGO) bench --no-default-features --bench forecast --
bench-forecast: deps ## Foretell 80 real migrations under KVM and 60 emulated ones in the lab, then do them; goes on where it was
	@if test -e /dev/kvm; then $(LAB) up --kvm a b d && eval "$$($(LAB) env)" && $(FORECAST) run $(RESULTS)/kvm-5.jsonl --seed 7 --kvm 80; \
	else echo "there is no /dev/kvm: the campaign under KVM is skipped"; fi
	@$(LAB) up && eval "$$($(LAB) env)" && $(FORECAST) run $(RESULTS)/emulated-5.jsonl --seed 5 --share 0.4
	@$(CARGO) test -p vmgate-forecast --test kvm_public -- --nocapture
	@$(FORECAST) docs docs

generate: build ## Write the generated files again: schemas, rule reference, samples
	@tests/generate

drift: generate ## Fail when a generated file is not fresh
	@git diff --exit-code -- schema docs reports || { echo "generated files have drifted: commit what 'make generate' wrote" >&2; exit 1; }

recording: build ## Write docs/session.svg anew, from the real program
	@tests/recording/record

book: ## The documentation as a book, in target/book (mdBook; built on the first run, some minutes)
	@command -v mdbook >/dev/null || $(CARGO) install --locked mdbook
	mdbook build docs

install: deps ## Install the program for this user (~/.cargo/bin); the on-host program is inside it
	$(CARGO) install --path . --locked

deb: release ## The Debian package, in target/debian
	@packaging/deb release

rpm: release ## The rpm package, in target/rpm, by rpmbuild
	@command -v rpmbuild >/dev/null || tests/install rpm
	@packaging/rpm release

tarball: release ## The files of the packages as target/vmgate-VERSION-ARCH.tar.xz
	@packaging/tarball release

ansible-test: build ## The Ansible collection with a real ansible-core, ansible-lint, and the lab if it is up
	@tests/ansible/check

monitoring-test: build ## A real Prometheus scrapes `vmgate serve`, and the shipped alerts fire
	@tests/monitoring/check

static: deps ## The part without libvirt as one static file, target/release/vmgate-static
	$(CARGO) rustc --release --locked --no-default-features --bin vmgate -- $(STATIC)
	mv target/release/vmgate target/release/vmgate-static
	@! readelf --dynamic target/release/vmgate-static | grep NEEDED

reproducible: deps ## Is the same source the same binary? Builds twice and compares
	@packaging/reproducible

sbom: ## CycloneDX list of what is in the binary
	@mkdir -p target
	packaging/sbom >target/vmgate.cdx.json

FUZZ_SECONDS ?= 600
fuzz: deps ## Fuzz every parser of strangers' bytes, FUZZ_SECONDS (600) in all; needs a nightly toolchain
	@fuzz/run $(FUZZ_SECONDS)

# Without a network the advisories are read from a clone of github.com/rustsec/advisory-db: ADVISORY_DB=path.
deny: ## Licences, sources, bans and advisories of the dependencies (cargo-deny); ADVISORY_DB=path of a clone, if offline
	@command -v cargo-deny >/dev/null || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check licenses bans sources
	@packaging/advisories $(ADVISORY_DB)

clean: lab-down ## Remove the lab and what was built
	$(CARGO) clean
