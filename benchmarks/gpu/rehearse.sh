#!/bin/sh
# Shows that everything works under the GPU machine's stack (Python 3.12, torch 2.11, Triton 3.6,
# numpy and nothing else of the project's), on a machine without a GPU:
#
#   benchmarks/gpu/rehearse.sh [--folder DIR] [--keep] [--tests] [--json FILE] [--python PYTHON]
#
# With -h it says what it takes. It needs Python 3.12 or 3.11 with pip, and 5 GB of disk.

# pyenv keeps Pythons that it does not put forward.
for python in python3.12 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.12.*/bin/python3.12 python3.11 python3; do
    fits='import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'
    if "$python" -c "$fits" 2>/dev/null; then
        exec "$python" -P "$(dirname "$0")/rehearse.py" "$@"
    fi
done
echo "rehearse.sh: no Python 3.12 or 3.11 with venv and pip here" >&2
exit 2
