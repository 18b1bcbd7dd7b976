#!/usr/bin/env bash
# Set-up, source checks, then the whole test suite; arguments go to pytest.
# SNN_DEPLOY_REQUIRE=lava,sinabs,verilator,yosys makes a missing one of these a failure instead
# of a skip.
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
install dev
install_sinabs
setup_lava
PATH=$ROOT/.venv/bin:$PATH
say "checking the sources"
ruff check .
ruff format --check .
mypy
say "running the tests"
if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi
# Each of the two workers on one thread: more would wait for one another.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
exec python -m pytest -n 2 --dist worksteal
