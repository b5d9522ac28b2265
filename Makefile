# attestd: everything a developer needs. `make run` shows the main job, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test test-darwin check fix bench conformance attacks lock clean recorder recorder-verify package system-test soak

run: $(READY)
	@$(BIN)/attestd demo

test: $(READY)
	@$(BIN)/python -m tests

# Those that start attestd, once more, on a Mac that mirrors this machine (docs/macos.md).
test-darwin: $(READY)
	@$(BIN)/python -m tests --machine darwin

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --platform linux
	$(BIN)/mypy --platform darwin
	$(BIN)/lint-imports
	$(BIN)/python -m docs.generate --check

fix: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m docs.generate

# Installs the proxies that it compares with below .conformance: tests/bench/npm and tests/bench/pypi, by their locks.
BENCH ?= full
bench: $(READY)
	$(BIN)/python -m tests.bench $(BENCH)

# Installs Node 22, the suites and the npm servers below .conformance, from npm, with the digests of package-lock.json.
CONFORMANCE ?=
conformance: $(READY)
	$(BIN)/python -m tests.conformance $(CONFORMANCE)

# The rows W on every front before every server; make test has a quarter of these cells.
attacks: $(READY)
	ATTESTD_CELLS=all $(BIN)/python -m pytest tests/attacks/test_w_fronts.py

# The Debian package, in build/: with the environment that the lock names, for this minor version of Python.
VERSION ?=
package: $(READY)
	$(BIN)/python packaging/deb/build.py $(if $(VERSION),--version $(VERSION))

# The installed service on a Debian of its own, with a real PID 1; needs root, debootstrap, systemd-nspawn and qemu-system-x86_64.
SYSTEM ?=
system-test: $(READY)
	@$(BIN)/python -m tests.system $(SYSTEM)

SESSIONS ?= 100000
CALLS ?= 1000000
soak: $(READY)
	@$(BIN)/python -m tests.system soak --sessions $(SESSIONS) --calls $(CALLS)

lock: $(READY)
	$(BIN)/pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --extra dev --output-file requirements.lock pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header \
	  --output-file tests/bench/pypi/requirements.lock tests/bench/pypi/requirements.in

# The kernel recorder is built with Debian's clang 14 (packages clang-14 and llvm-14); the object is committed.
RECORDER := attestd/kernel/linux/recorder/recorder.bpf
CLANG ?= clang-14
LLVM_STRIP ?= llvm-strip-14
recorder_build = $(CLANG) -O2 -g -target bpf -mcpu=v3 -Wall -Wextra -Werror -Wno-unused-const-variable \
  -ffile-prefix-map=$(CURDIR)=. -c $(RECORDER).c -o $(1) && $(LLVM_STRIP) -g --strip-unneeded \
  --remove-section .rel.BTF --remove-section .rel.BTF.ext --remove-section .llvm_addrsig $(1)

recorder:
	$(call recorder_build,$(RECORDER).o)

recorder-verify:
	@built=$$(mktemp) && trap 'rm -f "$$built"' EXIT && $(call recorder_build,"$$built") && \
	  if cmp "$$built" $(RECORDER).o; then echo "the committed object is what its source builds"; \
	  else echo "the committed object is not what its source builds with $$($(CLANG) --version | head -1)" >&2; exit 1; fi

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench-results .conformance

# The lock names everything: pip resolves nothing (--no-deps), so that a release made since cannot get in its way.
$(READY): pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "attestd needs Python 3.11 or newer, found %s: set PYTHON=" % sys.version.split()[0])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing attestd and its tools into $(VENV) ..."
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -e .
	@$(BIN)/pip check --quiet
	@touch $(READY)
