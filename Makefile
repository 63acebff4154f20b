# make demo   the main job, end to end, against stand-ins of the two clouds; TOKEN=tpm: with the keys in a TPM
# make test   every check and test
# make test-kill, test-token, test-clock, test-page, test-door   kill -9, faults of the token, wrong time, a phone, who may
# make deb, test-boot   the package; the package on machines that boot
# make sim-decade   ten years of 10,000 leaves
# make bench-base, bench-token, bench-renewal, bench-revocation, bench-crl, bench-service   figures (docs/performance.md)
# All set up what they need first (Debian packages with sudo when not root, then .venv).

PYTHON := .venv/bin/python
TOKEN := softhsm

.PHONY: help setup demo test lint test-kill test-token test-clock bench-base bench-revocation deb test-boot clean

help:
	@sed -n '1,7s/^# //p' Makefile

setup:
	@scripts/setup

demo: setup
	@$(PYTHON) -m gatewayd.lab demo --token $(TOKEN) $(DEMO_ARGS)

lint: setup
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports

test: lint
	@$(PYTHON) -m pytest -q -n logical --maxprocesses 4 --dist worksteal $(TEST_ARGS)

test-kill: setup
	@$(PYTHON) -m pytest -q -s tests/e2e/test_revocation_kills.py tests/e2e/test_replacement_kills.py --kills 200 $(TEST_ARGS)

test-token: setup
	@ROUNDS=1000 $(PYTHON) -m pytest -q tests/integration/keys tests/integration/tpm_sim tests/e2e/test_token.py tests/e2e/test_tpm.py $(TEST_ARGS)

bench-base: setup
	@$(PYTHON) -m benchmarks.base

bench-revocation: setup
	@$(PYTHON) -m benchmarks.revocation

.PHONY: bench-crl
bench-crl: setup
	@$(PYTHON) -m benchmarks.crl

.PHONY: bench-token
bench-token: setup
	@$(PYTHON) -m benchmarks.token

.PHONY: sim-decade bench-renewal
sim-decade: setup
	@$(PYTHON) -m benchmarks.decade $(SIM_ARGS)

bench-renewal: setup
	@$(PYTHON) -m benchmarks.renewal

.PHONY: bench-service
bench-service: setup
	@scripts/setup bench
	@$(PYTHON) -m benchmarks.service $(BENCH_ARGS)

deb: setup
	@scripts/setup boot
	@$(PYTHON) -m tests.boot.package

# PICTURES=docs/page takes the screenshots of docs/page.md anew.
.PHONY: test-page
test-page: setup
	@scripts/setup page
	@$(PYTHON) -m pytest -q tests/page $(if $(PICTURES),--pictures $(PICTURES)) $(TEST_ARGS)

.PHONY: test-door
test-door: setup
	@$(PYTHON) -m pytest -q tests/integration/control/test_door.py $(TEST_ARGS)

test-boot: setup
	@scripts/setup boot
	@$(PYTHON) -m pytest -q tests/boot $(TEST_ARGS)

test-clock: setup
	@$(PYTHON) -m pytest -q tests/unit/test_core_clock.py tests/unit/test_services_clock.py tests/e2e/test_clock.py $(TEST_ARGS)

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
