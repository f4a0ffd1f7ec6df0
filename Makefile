# The commands of the project; `make help` lists them. Recipes stay short: what needs
# thought lives in envs/*.py (before the environment exists) and in `blockwise` (after).

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# What can be set: make reproduce CORES=2, make preflight BACKBONE=smollm2-135m, DEVICE=gpu,
# make crate RUN_BY="Ada Lovelace" ORCID=https://orcid.org/0000-0000-0000-0000 ...
# The first of the tested Pythons that runs here.
PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do \
	"$$name" -c '' 2>/dev/null && { echo "$$name"; break; }; done)
# Which environment every command uses and makes: cpu (.venv) or gpu (.venv-gpu).
DEVICE ?= cpu
# Which one `make env` and `make lock` mean; beside those two there are crate (.venv-crate) and
# adapters (.venv-adapters). Not taken from a shell's variables: many hold one of this name.
ENVIRONMENT = $(DEVICE)
CORES ?= all
CONFIG ?= config/config.yaml
BACKBONE ?=
EARLIER ?=
LOCAL ?=
ARGS ?=
REPAIR ?=
OLD ?=
NEW ?=
RUN_BY ?=
ORCID ?=
export RUN_BY ORCID
# The one place that carries CPU builds of torch where pip's own configuration has none.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

ifeq ($(filter cpu gpu,$(DEVICE)),)
$(error DEVICE is '$(DEVICE)'; it is cpu or gpu)
endif
VENV := $(if $(filter gpu,$(DEVICE)),.venv-gpu,.venv)
PY := $(VENV)/bin/python
BLOCKWISE := $(PY) -m blockwise
# The profile of a run is the last one its config files name.
PROFILE = $(shell awk '/^profile:/ { name = $$2 } END { print name }' $(CONFIG))
REPORT = results/$(PROFILE)/report.html
SNAKEMAKE = PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/snakemake --cores $(CORES) \
	--configfile $(CONFIG) --rerun-incomplete
TIMED = $(PY) -m blockwise.timed
IN_FEW_WORDS = --quiet host progress rules reason
WRITE_REPORT = $(SNAKEMAKE) $(IN_FEW_WORDS) --report $(REPORT)
WRITE_CRATE = $(SNAKEMAKE) crate $(IN_FEW_WORDS)
# Two processes: one has the tests of the model server, the other the rest (tests/processes.py).
PYTEST := PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(PY) -m pytest -n 2
DEFAULT_TESTS := not slow and not gpu and not network

.PHONY: help
help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

.PHONY: reproduce
reproduce: env ## Environment, run, tables and figures: everything, or only what is missing
	@$(BLOCKWISE) reproduce $(CONFIG) --cores $(CORES)

.PHONY: small
small: ## HotpotQA and LoCoMo on models of 0.5B and 1.5B, a night on two cores [LOCAL=overlay]
	@$(MAKE) reproduce CONFIG="config/config.yaml config/small.yaml $(LOCAL)"

.PHONY: ladder
ladder: CONFIG = config/config.yaml config/ladder.yaml
ladder: env unlock ## MXFP4 from scratch against FP8, 8 hours of two cores at idle priority [CONFIG=]
	@nice -n 19 env $(SNAKEMAKE) mxfp4
	@echo "ladder: tables are in results/$(PROFILE)/tables; finished runs, to be committed, in" \
		"results/reference/$(PROFILE)/records"

.PHONY: report
report: env ## One HTML file of a finished run: claims, figures, tables, provenance
	@$(BLOCKWISE) report $(CONFIG)

.PHONY: crate
crate: env ## A finished run as a folder to deposit, a Workflow Run RO-Crate [RUN_BY= ORCID=]
	@$(WRITE_REPORT)
	@$(WRITE_CRATE)
	@echo "crate: results/$(PROFILE)/crate"

.PHONY: check-crate
check-crate: env-crate ## Hold the crate against its profile, with RO-Crate's own validator [ARGS=]
	@.venv-crate/bin/python envs/validate_crate.py results/$(PROFILE)/crate $(ARGS)

.PHONY: test
test: env ## The default tests, on a real model server
	@echo "test: leaves out slow (make test-all), gpu and network tests"
	@$(PYTEST) -m "$(DEFAULT_TESTS)"

.PHONY: test-all
test-all: env ## The slow tests too
	@echo "test-all: leaves out gpu and network tests; name them: $(VENV)/bin/pytest -m gpu"
	@$(PYTEST) -m "not gpu and not network"

.PHONY: test-adapters
test-adapters: env-adapters ## The adapters' tests, with the released agent frameworks
	@.venv-adapters/bin/python -m pytest --noconftest workflow/tests/adapters

.PHONY: chaos
chaos: env ## Break small runs 210 times and see that nothing is lost, 40 minutes [ARGS=]
	@echo "chaos: every injected fault goes to results/chaos/campaign.json"
	@cd workflow/tests && PATH="$(CURDIR)/$(VENV)/bin:$$PATH" PYTHONPATH=../src:. \
		$(CURDIR)/$(PY) -m chaos.campaign --output $(CURDIR)/results/chaos/campaign.json $(ARGS)

.PHONY: check
check: env ## Lint, format, types, workflow lint, schema drift, dry run of every profile
	@$(PY) -m blockwise.dev.checks

.PHONY: verify
verify: env ## Hold tables, figures and cells against what the run recorded [REPAIR=1]
	@$(BLOCKWISE) verify results/$(PROFILE) $(if $(REPAIR),--repair)

.PHONY: preflight
preflight: env ## One minute: can this machine run the profile? [BACKBONE=name]
	@$(BLOCKWISE) preflight $(CONFIG) $(if $(BACKBONE),--backbone $(BACKBONE))

.PHONY: estimate
estimate: env ## The bill first: cells, tokens, hours, disk, what does not fit [EARLIER=tables ARGS=]
	@$(BLOCKWISE) estimate $(CONFIG) $(if $(EARLIER),--earlier $(EARLIER)) $(ARGS)

.PHONY: bench-compaction
bench-compaction: env ## Ratios between layouts and the client's own cost [BACKBONE=name]
	@echo "bench-compaction: the server's log is in logs/bench"
	@$(TIMED) $(PY) -m blockwise.bench.compaction --configfile $(CONFIG) $(if $(BACKBONE),--backbone $(BACKBONE))

.PHONY: bench-eager
bench-eager: env ## Workers sent ahead of tau against parallel and sequential, 15 minutes [BACKBONE=name]
	@$(TIMED) $(PY) -m blockwise.bench.eager --configfile $(CONFIG) $(if $(BACKBONE),--backbone $(BACKBONE))

.PHONY: bench-mxfp4
bench-mxfp4: env ## Cost of a training step with emulated MXFP4 against fp32 and torchao
	@TORCHINDUCTOR_COMPILE_THREADS=1 $(TIMED) $(PY) -m blockwise.bench.mxfp4 --configfile $(CONFIG)

.PHONY: bench-pipeline
bench-pipeline: env ## What our rules add to Snakemake's own start
	@$(TIMED) $(PY) -m blockwise.bench.pipeline --configfile $(CONFIG)

.PHONY: bench
bench: bench-pipeline bench-mxfp4 bench-compaction ## All three; reports go to results/bench

.PHONY: bench-compare
bench-compare: env ## What got slower between two folders of reports: OLD=folder NEW=folder
	@$(PY) -m blockwise.bench.compare $(or $(OLD),$(error OLD is empty; name a folder of reports)) \
		$(or $(NEW),results/bench)

.PHONY: pin
pin: env ## Resolve unpinned revisions and digests (needs the network)
	@$(PY) -m blockwise.config.pin $(if $(filter-out config/config.yaml,$(CONFIG)),$(CONFIG),config/config.yaml config/paper.yaml)

.PHONY: reference
reference: env ## Refresh the committed snapshot of the default run
	@$(PY) -m blockwise.run.reference results/$(PROFILE) figures/$(PROFILE)

.PHONY: unlock
unlock: env ## Remove the lock of a killed run, if nobody is at work here
	@$(PY) -m blockwise.run.run_lock --configfile $(CONFIG)

.PHONY: env
env: ## Make the environment from its lock, if it is not finished already
	@"$(PYTHON)" -c '' 2>/dev/null || { echo "error: $(or $(PYTHON),python3)" \
		"does not run; install Python 3.11, 3.12 or 3.13, or name one: make PYTHON=/path/to/it" >&2; exit 2; }
	@"$(PYTHON)" envs/check_platform.py $(ENVIRONMENT)
	@"$(PYTHON)" envs/build_env.py --environment $(ENVIRONMENT) --torch-index "$(TORCH_INDEX)"

.PHONY: env-gpu
env-gpu: ## The environment for CUDA GPUs; then name it: make reproduce DEVICE=gpu
	@$(MAKE) env ENVIRONMENT=gpu

.PHONY: env-crate
env-crate: ## The environment of the crate's validator
	@$(MAKE) env ENVIRONMENT=crate

.PHONY: env-adapters
env-adapters: ## The environment of the adapters' tests: LangChain and inspect_ai
	@$(MAKE) env ENVIRONMENT=adapters

.PHONY: gpu
gpu: ## On a GPU: layouts at 96k tokens of history, the MXFP4 ladder at 25M; into workflow/docs/gpu
	@$(MAKE) reproduce DEVICE=gpu CONFIG="config/config.yaml config/gpu.yaml"
	@.venv-gpu/bin/python -m blockwise.run.reference results/gpu figures/gpu --into workflow/docs/gpu

.PHONY: wheel
wheel: env ## The package as others install it, into dist
	@$(PY) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build
	@ls dist/*.whl

.PHONY: lock
lock: ## Resolve what an environment asks for into its lock [ENVIRONMENT= UPGRADE=1: move versions]
	@"$(PYTHON)" envs/make_lock.py --environment $(ENVIRONMENT) $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## Remove logs, caches, tables and figures; with CONFIRM=1 also finished cells and runs
	@bash envs/clean.sh "$(CONFIRM)"
