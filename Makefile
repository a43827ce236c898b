# The entry points for developers; CI runs .ci/run, which calls them.

# Outside of the checkout, so that a fresh clone reuses what is compiled; the same as in e2e/lib.sh.
AUTHLINK_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/authlink
CARGO_TARGET_DIR ?= $(AUTHLINK_CACHE)/target
export AUTHLINK_CACHE CARGO_TARGET_DIR

.PHONY: help test chaos e2e demo bench fmt lint deny

help: ## lists all targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: ## runs all tests against a real Kubernetes API, real databases, a real nginx and slapd (installs missing packages, as root)
	e2e/prepare api databases web directory domain extras faults
	cargo test --workspace --locked --no-run
	e2e/with api,postgresql,mariadb,redis,ferretdb,nginx,slapd -- cargo test --workspace --locked --offline

chaos: ## kills processes that deliver webhooks and takes their store away, again and again, and checks that nothing is lost (about 20 minutes)
	e2e/prepare databases web faults
	cargo test --locked --no-run --test it
	AUTHLINK_CHAOS_EVENTS=20000 AUTHLINK_CHAOS_KILLS=20 AUTHLINK_CHAOS_ROUNDS=10 AUTHLINK_HISTORIES=50000 e2e/with postgresql -- \
		cargo test --locked --offline --test it delivery:: -- --test-threads=2

e2e: ## installs the Helm chart in a Kubernetes cluster that runs pods, and tests it (as root)
	e2e/run

demo: ## runs a demo; KEEP=1 leaves it running
	e2e/demo

bench: ## runs the benchmarks
	e2e/bench

fmt: ## formats the code
	cargo fmt

lint: ## checks format and lints
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings

deny: ## checks licenses and sources of the dependencies, and that there are no banned ones
	e2e/prepare deny
	"$$(e2e/tool cargo-deny)" --locked check bans licenses sources
