# Shared set-up, sourced by demo.sh and test.sh: a Python that fits, a virtual environment in
# .venv, the package with its tested versions, and Lava's own environment. What is there already
# is used again. Settings of yours for pip (environment, pip.conf) hold.

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

say() { printf '%s\n' "$*" >&2; }
fail() {
    printf 'error: %s\n  hint   %s\n' "$1" "$2" >&2
    exit 7
}

fits() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' >/dev/null 2>&1
}

find_python() {
    if [ -n "${SNN_DEPLOY_PYTHON:-}" ]; then
        fits "$SNN_DEPLOY_PYTHON" || fail "SNN_DEPLOY_PYTHON is not a Python of 3.11 to 3.13" \
            "unset it, or point it at one"
        PYTHON=$SNN_DEPLOY_PYTHON
        return
    fi
    for PYTHON in python3 python3.12 python3.11 python3.13 python; do
        if command -v "$PYTHON" >/dev/null 2>&1 && fits "$PYTHON"; then return; fi
    done
    fail "no Python of 3.11 to 3.13 found" \
        "install one (Debian, Ubuntu: apt install python3 python3-venv), or set SNN_DEPLOY_PYTHON=/path/to/python"
}

# install EXTRA: the package with one of its extras, unless the same was installed before.
install() {
    local extra=$1 python=.venv/bin/python wanted stamp
    if [ -x "$python" ] && ! fits "$python"; then
        say "the Python of .venv is gone or does not fit: making it again"
        rm -rf .venv
    fi
    if [ ! -x "$python" ]; then
        find_python
        say "making .venv with $("$PYTHON" --version)"
        rm -rf .venv
        if ! "$PYTHON" -c 'import venv, ensurepip' >/dev/null 2>&1; then
            fail "this Python has no venv module" "Debian, Ubuntu: apt install python3-venv"
        fi
        "$PYTHON" -m venv .venv || fail "the virtual environment could not be made" \
            "check the free disk space and the rights of $ROOT"
    fi
    # The folder is part of it: an environment that was copied or moved is not one.
    wanted=$(printf '%s ' "$ROOT" && cat pyproject.toml constraints.txt | cksum)
    for stamp in ".venv/installed-$extra" .venv/installed-dev; do
        if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then return; fi
    done
    rm -f .venv/installed-*
    say "installing snn-deploy[$extra] into .venv (once; some minutes on a slow line)"
    "$python" -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$extra]" ||
        fail "pip could not install snn-deploy[$extra]" \
            "see pip's message above; behind a proxy or mirror, set pip's own settings first"
    printf '%s' "$wanted" >".venv/installed-$extra"
}

# sinabs pins an older nir and a chip's driver, and needs neither for its layers.
install_sinabs() {
    if .venv/bin/python -c 'import sinabs.layers' >/dev/null 2>&1; then return; fi
    .venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
        -c constraints.txt sinabs ||
        fail "pip could not install sinabs" "see pip's message above"
}

setup_lava() {
    .venv/bin/snn-deploy setup loihi >&2
}

# One thread per process: the work is small, and the two simulators run side by side.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
