# Two commands matter: `make demo` and `make test`. Each does all set-up it needs.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
UPGRADE ?=
CHAOS_SECONDS ?= 1800
CHAOS_SEED ?= 0
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := $(BIN)/pip install --disable-pip-version-check --no-compile --no-deps --no-build-isolation
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-emit-index-url \
  --custom-compile-command 'make lock' --no-emit-package torch -c locks/torch.txt
SHOW_PACKAGES := | sed -unE 's/^(Collecting|Installing) ([^ ]+).*/  \1 \2/p'
PROTOS := $(wildcard proto/fedattn/wire/v1/*.proto)
# Modules stay compiled: else every process of a network compiles torch anew, two seconds of CPU time each.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup browser screenshots demo up test tests check lint format proto proto-check lock docs site compose-test cluster-test chart-check bench bench-all bench-links bench-load bench-scale bench-concurrency bench-decoding bench-sealing bench-codecs bench-frontier bench-plans bench-findings fuzz chaos audit clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml locks/build.txt locks/dev.txt locks/torch.txt
	@echo "setting up $(VENV) (a few minutes the first time)"
	@$(PYTHON) -m venv $(VENV)
	@$(INSTALL) --require-hashes -r locks/build.txt $(SHOW_PACKAGES)
	@$(INSTALL) --require-hashes -r locks/dev.txt $(SHOW_PACKAGES)
	@$(BIN)/pip install --disable-pip-version-check --no-compile -r locks/torch.txt $(SHOW_PACKAGES)
	@$(INSTALL) -e . $(SHOW_PACKAGES)
	@touch $@

setup: $(STAMP) ## make .venv with everything, and the prepared embedded model
	@$(BIN)/fedattn model prepare

browser: ## Chromium, for the tests of the pages; without it they are skipped
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get update -qq \
	  && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; \
	then echo "installed Chromium"; \
	else echo "no Chromium: the tests of the pages are skipped; install one, such as: apt-get install --no-install-recommends chromium"; fi

demo: setup ## three contributors and a publisher answer one question together
	@$(BIN)/fedattn demo

up: setup ## the demo's network, kept running until Ctrl-C
	@$(BIN)/fedattn up

test: setup browser ## lint, types, import rules, proto drift, all tests
	@$(MAKE) --no-print-directory --jobs=2 tests check

tests: $(STAMP) # in the order of folders: unit tests, which are short, fill the gaps at the end
	$(BIN)/pytest --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: $(STAMP) lint proto-check ## what CI checks besides the tests

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP) ## rewrite the code in the house format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(STAMP) ## generate the gRPC code from proto/
	$(BIN)/python -m grpc_tools.protoc -I proto $(PROTOS) \
	  --python_out=. --grpc_python_out=. --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc --mypy_out=. --mypy_grpc_out=.

proto-check: $(STAMP)
	@scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(BIN)/python -m grpc_tools.protoc -I proto $(PROTOS) \
	  --python_out=$$scratch --grpc_python_out=$$scratch \
	  --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy \
	  --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc \
	  --mypy_out=$$scratch --mypy_grpc_out=$$scratch; \
	diff -ru --exclude=__pycache__ --exclude=__init__.py fedattn/wire/v1 $$scratch/fedattn/wire/v1 \
	  || { echo "generated code differs from proto/; run: make proto"; exit 1; }

lock: $(STAMP) ## write locks/ anew from pyproject.toml; UPGRADE=--upgrade takes newer versions
	$(COMPILE) $(UPGRADE) pyproject.toml --extra dev --group build --group model -o locks/dev.txt
	$(COMPILE) -c locks/dev.txt pyproject.toml --extra participant --extra telemetry --group model -o locks/participant.txt
	$(COMPILE) -c locks/dev.txt pyproject.toml --extra client --extra gateway --extra oidc --extra cluster --extra telemetry -o locks/gateway.txt
	$(COMPILE) -c locks/dev.txt pyproject.toml --extra services --extra cluster --extra telemetry -o locks/aggregator.txt
	$(COMPILE) -c locks/dev.txt --group build -o locks/build.txt

docs: $(STAMP) ## rewrite the tables that documents take from code and results
	$(BIN)/python -m benchmarks.table
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.faults_table
	$(BIN)/python -m benchmarks.settings_table
	$(BIN)/python -m benchmarks.api_table
	$(BIN)/python -m benchmarks.wire_table
	$(BIN)/python -m benchmarks.metrics_table
	$(BIN)/python -m benchmarks.command_table

site: $(STAMP) ## the documents as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

screenshots: setup browser ## take the pictures of docs/page.md
	$(BIN)/python -m benchmarks.screenshots

compose-test: ## build the images, run docker-compose.yml, ask, kill a node, ask again (needs Docker)
	docker/compose-test.sh

cluster-test: ## the same with several aggregators, NATS and two gateways; kill some of them while asking
	docker/cluster-test.sh

chart-check: $(STAMP) ## lint and render deploy/helm/fedattn by Helm's library; asks the network
	@$(BIN)/uv run --no-project --isolated --with helm-python-sdk==0.2.2 --with kubernetes-validate==1.37.0 deploy/helm/check.py

bench: setup ## network session against one model, side by side
	$(BIN)/python -m benchmarks.session

bench-links: setup ## time to first token over emulated edge links (needs root and iproute2)
	$(BIN)/python -m benchmarks.links

bench-load: setup ## aggregators under scheduled load from nodes without a model, half an hour
	$(BIN)/python -m benchmarks.load

bench-scale: $(STAMP) ## what a federation of up to 100,000 nodes takes, by the results of bench-load
	$(BIN)/python -m benchmarks.scale

bench-all: setup ## all figures of docs/measured.md, an hour
	$(BIN)/python -m benchmarks.session --json benchmarks/results/session.json
	$(BIN)/python -m benchmarks.session --tokens 64 --json benchmarks/results/session-short.json
	$(BIN)/python -m benchmarks.session --weights float32 --json benchmarks/results/session-float32.json
	$(BIN)/python -m benchmarks.session --weights bfloat16 --json benchmarks/results/session-bfloat16.json
	$(BIN)/python -m benchmarks.decoding --json benchmarks/results/decoding.json
	$(BIN)/python -m benchmarks.concurrency --json benchmarks/results/concurrency.json --plot docs/concurrency.svg
	$(BIN)/python -m benchmarks.soak --json benchmarks/results/soak.json
	$(BIN)/python -m benchmarks.long_prompts --json benchmarks/results/long-prompts.json
	$(BIN)/python -m benchmarks.sealing --json benchmarks/results/sealing.json
	$(BIN)/python -m benchmarks.sealing --tokens 64 --json benchmarks/results/sealing-short.json
	$(BIN)/python -m benchmarks.links --json benchmarks/results/links.json
	$(BIN)/python -m benchmarks.load --json benchmarks/results/load.json --plot docs/load.svg
	$(BIN)/python -m benchmarks.plans --json benchmarks/results/plans.json
	$(BIN)/python -m benchmarks.independent --json benchmarks/results/independent.json
	$(BIN)/python -m benchmarks.table

bench-concurrency: setup ## 1 to 16 questions at once against the same in a row
	$(BIN)/python -m benchmarks.concurrency --json benchmarks/results/concurrency.json --plot docs/concurrency.svg

bench-decoding: setup ## tokens a second against transformers' generate, and what int8 costs
	$(BIN)/python -m benchmarks.decoding

bench-sealing: setup ## CPU time and bytes of sealing rows, beside the session they belong to
	$(BIN)/python -m benchmarks.sealing

bench-codecs: setup ## bytes, errors, speed and answers for every codec and selector
	$(BIN)/python -m benchmarks.codecs

bench-frontier: setup ## bytes against quality on texts of real length, some hours
	$(BIN)/python -m benchmarks.frontier --length 50:300:10 200:300:10 600:300:20 1500:300:30 --summary benchmarks/results/frontier.json --plot docs/frontier.svg

bench-plans: setup ## right answers and likelihood against the number of sync layers
	$(BIN)/python -m benchmarks.plans

bench-findings: setup ## the paper's findings, into the folder findings
	$(BIN)/python -m benchmarks.findings --out findings --plot findings/findings.svg

fuzz: $(STAMP) ## hostile frames, messages, files, texts and requests, half an hour or more
	$(BIN)/python -m tests.fuzz.frames --examples 200000
	$(BIN)/python -m tests.fuzz.parsers --examples 2000
	$(BIN)/pytest tests/integration/test_gateway_fuzz.py --hypothesis-profile=fuzz

chaos: $(STAMP) ## faults in random order against a federation of processes; CHAOS_SECONDS, CHAOS_SEED
	$(BIN)/python -m tests.chaos --seconds $(CHAOS_SECONDS) --seed $(CHAOS_SEED)

audit: $(STAMP) ## known vulnerabilities of what the lock names; asks the network
	@$(BIN)/uvx pip-audit@2.10.1 --require-hashes --disable-pip -r locks/dev.txt

clean: ## remove the environment and caches of this folder
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build *.egg-info
