# The commands of this project. Each builds .venv first when it is missing or older than what it was built from.
# Needed: python3 (3.11 or newer), make and a package index.
#
#     make test PYTHON=python3.13           builds a missing .venv with another Python
#     make test ARGS="tests/unit -x"        hands arguments on (demo, examples, test, chaos, fuzz, load, serve, bench, lock)

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
COMPOSE := docker compose -f deploy/compose.yaml
SERVICES ?=
BENCH_VENV := build/bench-venv
BENCH := $(BENCH_VENV)/.installed

# The contract of the last release, from which nothing may be taken away.
RELEASED := released.binpb

# What the image has, and what builds it: of the same versions as everything else.
LOCK_IMAGE := $(BIN)/uv pip compile -q --universal --python-version 3.13 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" -c requirements.lock

.DEFAULT_GOAL := help
.PHONY: help demo examples test test-deploy up down logs chaos check format serve bench bench-scale figures docs proto
.PHONY: fuzz load release-contract dashboards lock clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-16s %s\n", $$1, $$2 }' Makefile

demo: $(INSTALLED) ## Train a network on handwritten digits and watch it happen
	$(BIN)/chainrule demo $(ARGS)

examples: $(INSTALLED) ## Run the examples, and see what they reach (ARGS="digits fashion-cnn", ARGS=--quick)
	$(BIN)/python -m examples $(ARGS)

test: $(INSTALLED) ## Run every test
	$(BIN)/pytest $(ARGS)

test-deploy: $(INSTALLED) ## Build the image and try the deployment for real (needs Docker with Compose)
	$(BIN)/pytest -n 0 -m deploy tests/deploy $(ARGS)

up: ## Start everything by Docker Compose: coordinator, workers, Prometheus, Grafana (SERVICES="coordinator worker")
	sh deploy/secrets.sh
	$(COMPOSE) up -d --build --wait $(SERVICES)
	@echo "gRPC is at 127.0.0.1:50051: CHAINRULE_TOKEN_FILE=deploy/secrets/api_token chainrule jobs list"

down: ## Stop it; jobs, datasets and models stay
	$(COMPOSE) down

logs: ## Follow what its containers say
	$(COMPOSE) logs -f --tail 50

chaos: $(INSTALLED) ## Kill, stop and starve every part at random moments, and see that jobs end with the same bits
	$(BIN)/python -m tests.chaos $(ARGS)

fuzz: $(INSTALLED) ## Call every method with messages that are almost right (ARGS="--seconds 600 --seed 7")
	$(BIN)/python -m tests.fuzz $(ARGS)

load: $(INSTALLED) ## Have 200 clients at once create, watch and predict, and see that nothing is lost
	$(BIN)/python -m benchmarks.load $(ARGS)

check: $(INSTALLED) ## Check format, lint, types, the contract, what is generated, the image and the import directions
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf format -d --exit-code
	cd protos && ../$(BIN)/buf breaking --against $(RELEASED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python protos/generate.py --check
	$(BIN)/python protos/reference.py --check
	$(BIN)/python -m deploy.grafana --check
	$(BIN)/python -m service.metrics.reference --check
	$(BIN)/hadolint deploy/Dockerfile tests/deploy/stand_in/Dockerfile
	$(BIN)/pytest -q tests/test_architecture.py

format: $(INSTALLED) ## Format the code and the contract, and mend what ruff can mend
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format
	cd protos && ../$(BIN)/buf format -w

serve: $(INSTALLED) ## Start a coordinator: gRPC on 127.0.0.1:50051, metrics on 127.0.0.1:9464
	$(BIN)/chainrule serve $(ARGS)

bench: $(INSTALLED) $(BENCH) ## Measure speed against other ways to do the same (ARGS="--quick --rows small-adam,step")
	$(BIN)/python -m benchmarks --bench-python=$(BENCH_VENV)/bin/python $(ARGS)

bench-scale: $(INSTALLED) ## Measure how the cost of a step grows with workers, parameters and shards
	$(BIN)/python -m benchmarks scale $(ARGS)

$(BENCH): benchmarks/requirements.txt $(INSTALLED)
	"$(PYTHON)" -m venv --clear $(BENCH_VENV)
	$(BENCH_VENV)/bin/python -m pip install -q --disable-pip-version-check -r benchmarks/requirements.txt
	@touch $@

figures: $(INSTALLED) ## Draw the figures of docs/ anew, from real runs
	$(BIN)/python examples/vanishing_gradients.py docs/vanishing-gradients.svg

docs: $(INSTALLED) ## Write docs/api.md and docs/metrics.md anew, from what is declared
	$(BIN)/python protos/reference.py
	$(BIN)/python -m service.metrics.reference

proto: $(INSTALLED) ## Write the Python stubs of the contract into chainrule/v1
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python protos/generate.py

release-contract: $(INSTALLED) ## Promise the contract as it is now: a part of making a release
	cd protos && ../$(BIN)/buf build --exclude-source-info -o $(RELEASED)

dashboards: $(INSTALLED) ## Write Grafana's dashboards from deploy/grafana/*.py
	$(BIN)/python -m deploy.grafana

lock: $(INSTALLED) ## Bring requirements.lock in line with pyproject.toml (ARGS=--upgrade for newer versions)
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --all-extras --generate-hashes \
		--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" \
		$(ARGS) pyproject.toml -o requirements.lock
	$(LOCK_IMAGE) --extra server --extra onnx --extra remote pyproject.toml -o deploy/image.lock
	echo hatchling | $(LOCK_IMAGE) - -o deploy/build.lock

clean: ## Remove .venv, caches and whatever was built
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis *.egg-info
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is there only while the environment is whole: removed first, written last. Without it, whatever an
# interrupted build left is thrown away; with it, only what changed is installed.
$(INSTALLED): requirements.lock pyproject.toml
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "There is no $(PYTHON) here. Chainrule needs Python 3.11 or newer; if yours has another name: make PYTHON=python3.13" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
		"Chainrule needs Python 3.11 or newer, and $(PYTHON) is %d.%d.%d. If you have a newer one: make PYTHON=python3.13" % v[:3])'
	@"$(PYTHON)" -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "$(PYTHON) lacks its venv module. On Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@if [ -f $@ ] && $(BIN)/python -c ''; then \
		echo "Updating $(VENV) to requirements.lock"; rm $@; \
	else \
		echo "Building $(VENV) with $$("$(PYTHON)" --version). This takes about a minute, once."; \
		"$(PYTHON)" -m venv --clear $(VENV); \
	fi
	@echo "  installing the $$(grep -c '^[a-z0-9].*==' requirements.lock) packages of requirements.lock"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@echo "  installing chainrule itself"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-build-isolation --no-deps -e .
	@touch $@
