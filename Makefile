# Every entry point for people; CI runs .ci/run, which calls these.

# Outside the checkout, so that a fresh clone finds what another one has compiled; e2e/lib.sh says the same to the scripts.
AUTHLINK_CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/authlink
CARGO_TARGET_DIR ?= $(AUTHLINK_CACHE)/target
export AUTHLINK_CACHE CARGO_TARGET_DIR

.PHONY: help test e2e demo bench fmt lint

help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z0-9]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

test: ## runs all tests against a real Kubernetes API, real databases and a real nginx (installs what is missing, as root)
	e2e/prepare api databases web
	cargo test --workspace --locked --no-run
	e2e/with api,postgresql,mariadb,redis,ferretdb,nginx -- cargo test --workspace --locked --offline

e2e: ## installs the product with Helm into a Kubernetes that runs pods, and checks it there (as root)
	e2e/run

demo: ## shows the product at work; KEEP=1 leaves it running, to look around
	e2e/demo

bench: ## measures, side by side with a reference
	e2e/bench

fmt: ## formats the code
	cargo fmt

lint: ## checks format and style
	cargo fmt --check
	cargo clippy --all-targets --locked -- -D warnings
