# What one types here. The work itself is in scripts/.

.DEFAULT_GOAL := help
.PHONY: help test bench tools cluster

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: tools ## Install what the tests need, then check everything: format, dependencies, lints, tests, features, docs
	@scripts/test

tools: ## Install what the tests need and this machine lacks
	@scripts/install-test-tools

cluster: ## Start a Redis and three chats behind it, and say what to open
	@scripts/cluster

bench: ## Run the benchmarks of gobroke-core
	cargo bench -p gobroke-core
