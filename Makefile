# `make` lists the targets. Two matter: `make demo` and `make test`; both set up .venv first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
CHECKS := .venv-checks/.installed
DEMO_DATA ?= $(if $(DATA),$(DATA),examples/support)
RUN_DATA ?= $(if $(DATA),$(DATA),examples/squad/passages.json)
SEED ?= 0
ARGS ?=
FAST := not model and not vllm and not e2e and not images and not network

.NOTPARALLEL:
.PHONY: help setup demo demo-full show-demo bench-student bench-auditor bench-retention bench-replicas tables tables-small run up test test-fast test-models boundary network fuzz soak lint format proto manifests lock lock-images sbom images dashboards pictures clean

help:
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(INSTALLED) ## set up .venv from the lock files (two to five minutes, once)

$(INSTALLED): requirements/cpu.txt requirements/cpu-torch.txt pyproject.toml tools/install
	PYTHON=$(PYTHON) tools/install .venv
	@touch $@

demo: $(INSTALLED) ## the main job on two documents: real model, real teacher, 20 to 35 minutes [DATA= SEED= ARGS=]
	$(BIN)/seal demo --data $(DEMO_DATA) --seed $(SEED) $(ARGS)

demo-full: $(INSTALLED) ## all documents in one update, about 20 minutes for six [DATA= SEED= ARGS=]
	$(BIN)/seal demo --full --data $(DEMO_DATA) --seed $(SEED) $(ARGS)

show-demo: $(INSTALLED) ## the demo, with its result as one JSON object on the last line
	@$(BIN)/seal demo --data $(DEMO_DATA) --seed $(SEED) --json-result $(ARGS)

bench-student: $(INSTALLED) ## how fast the student trains and answers, against plain PEFT and the reference [ARGS=]
	$(BIN)/python -m benchmarks.student $(ARGS)

bench-auditor: $(INSTALLED) ## how often the auditor's judgement is wrong, on simulated students, five minutes [ARGS=]
	$(BIN)/python -m benchmarks.auditor $(ARGS)

bench-retention: $(INSTALLED) ## what is learned and forgotten over eight passages, ours and as published; hours, resumable [DATA= EDITS= ARGS=]
	@$(BIN)/python -m benchmarks.retention $(if $(DATA),--data $(DATA)) $(if $(EDITS),--edits $(EDITS)) $(ARGS)

bench-replicas: $(INSTALLED) ## how much faster three students on one store train than one, and what killing one costs, six minutes [ARGS=]
	@$(BIN)/python -m benchmarks.replicas $(ARGS)

tables: $(INSTALLED) ## ours and the published procedure on 24 passages and a sequence of four, 100 minutes at most, resumable; JSON on the last line [DATA= EDITS= ARGS=]
	@$(BIN)/python -m benchmarks.method.tables $(if $(DATA),--data $(DATA)) $(if $(EDITS),--edits $(EDITS)) $(ARGS)

tables-small: $(INSTALLED) ## the same on three short passages and a sequence of two, with fewer epochs, ten minutes at most [DATA= EDITS= ARGS=]
	@$(BIN)/python -m benchmarks.method.tables --small $(if $(DATA),--data $(DATA)) $(if $(EDITS),--edits $(EDITS)) $(ARGS)

run: $(INSTALLED) ## a run over your own tasks against `make up` [DATA= ARGS=]
	$(BIN)/seal run $(RUN_DATA) $(ARGS)

up: $(INSTALLED) ## the three services on this machine, until Ctrl-C
	$(BIN)/seal up $(ARGS)

test: override ARGS :=
test: lint test-fast test-models ## lint, types, contract, and every test, the real model and vLLM included

# Two at a time, each on one core: a second pool of threads would slow both.
test-fast: $(INSTALLED) ## tests without real models [ARGS=]
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m '$(FAST)' $(ARGS)

test-models: $(INSTALLED) ## tests with SmolLM2, vLLM and the three services, one after another [ARGS=]
	$(BIN)/pytest --durations=12 --durations-min=20 -m 'model or vllm or e2e' $(ARGS)

boundary: $(INSTALLED) ## canaries in every key, every RPC as everybody, certificates replaced under load; JSON on the last line, two minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.boundary

network: $(INSTALLED) ## the NetworkPolicies enforced by a kernel, and a run under them; JSON on the last line, two minutes (needs root and kubectl)
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.network

fuzz: $(INSTALLED) ## 100,000 mutated requests over all RPCs; JSON on the last line, ten to twenty minutes [ARGS=]
	@$(BIN)/python -m tests.fuzz $(ARGS)

soak: $(INSTALLED) ## a day's worth of runs on scripted services: memory and files stay flat; JSON on the last line, four to ten minutes [ARGS=]
	@$(BIN)/python -m tests.soak $(ARGS)

lint: $(INSTALLED) ## ruff, mypy --strict, import rules, buf lint and breaking-change check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint proto
	tools/check_breaking

format: $(INSTALLED) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(INSTALLED) ## write the generated contract anew
	$(BIN)/python tools/generate_contract.py

dashboards: $(INSTALLED) ## write Grafana's dashboards anew, after a change of tools/dashboards
	$(BIN)/python -m tools.dashboards

pictures: $(INSTALLED) ## draw docs/pictures anew from a run that a Prometheus watches, three minutes
	$(BIN)/python -m tools.pictures

manifests: $(CHECKS) ## render, validate and check every overlay of deploy/k8s, a minute, the first time three (needs kubectl)
	@$(dir $(CHECKS))bin/python -m tools.manifests

$(CHECKS): requirements/checks.txt
	$(PYTHON) -m venv --clear $(dir $@)
	$(dir $@)bin/python -m pip --disable-pip-version-check $(PIP_ARGS) install -q --no-deps --require-hashes -r $<
	@touch $@

lock: ## resolve requirements/ anew (needs uv) [ARGS=]
	tools/lock $(ARGS)

lock-images: $(INSTALLED) ## resolve the images' requirements anew (needs uv) [ARGS=]
	$(BIN)/python -m tools.image_requirements $(ARGS)

sbom: requirements/image-tools.txt ## list what each image holds, as CycloneDX in build/sbom
	$(PYTHON) -m venv build/image-tools
	build/image-tools/bin/pip install -q --no-deps --require-hashes -r requirements/image-tools.txt
	PATH="$(CURDIR)/build/image-tools/bin:$$PATH" tools/sbom

images: $(INSTALLED) ## make what the images hold and start it, unprivileged on a read-only root, 15 minutes (needs root) [ARGS=]
	$(BIN)/pytest -m images $(ARGS)

clean: ## remove what was set up here, but neither the model cache nor .seal (ledger, adapters, certificates)
	rm -rf .venv .venv-checks .mypy_cache .ruff_cache .pytest_cache build *.egg-info
