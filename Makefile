# What one types here. The work itself is in scripts/.

.DEFAULT_GOAL := help
.PHONY: help test bench profile chaos tools cluster

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: tools ## Install what the tests need, then check everything: format, dependencies, lints, tests, features, docs
	@scripts/test

tools: ## Install what the tests need and this machine lacks
	@scripts/install-test-tools

cluster: ## Start a Redis and three chats behind it, and say what to open
	@scripts/cluster

bench: ## Measure whole servers side by side, and write target/bench/report.md; QUICK=1 for five minutes of it
	@scripts/bench

chaos: ## Let four instances go through faults: SETUP=single|sentinel|cluster FAULTS=random|each SEED=.. MINUTES=10
	@scripts/chaos

profile: ## Draw a flame graph of GoBroke under a load: SCENARIO="fan-out, 1000 receivers, 16 outstanding"
	@scripts/bench --profile "$(SCENARIO)"
