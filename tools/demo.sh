#!/usr/bin/env bash
# Everything from a fresh clone to a report: set-up, then `snn-deploy demo` with your arguments.
# bash tools/demo.sh [-o FOLDER] [--arch mlp|conv] [--force] [-v]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
CALLED_FROM=$OLDPWD
install demo
setup_lava
COMMAND=$ROOT/.venv/bin/snn-deploy
cd "$CALLED_FROM"
exec "$COMMAND" demo "$@"
