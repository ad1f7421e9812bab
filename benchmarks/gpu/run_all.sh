#!/bin/sh
# Everything on the GPU that is here, in under 8 minutes: checks first, then every section.
#
#   benchmarks/gpu/run_all.sh [--json FILE] [--sections a,b] [--tiny]   see python -m benchmarks.gpu -h
#   benchmarks/gpu/run_all.sh sanitize                                  memcheck and racecheck
#   benchmarks/gpu/run_all.sh tune                                      launch options, best first
#
# PYTHON names the interpreter; the project's own environment or python3 otherwise.
cd "$(dirname "$0")/../.." || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
export PYTHONUNBUFFERED=1
case "${1:-}" in
sanitize)
    # Every tensor in an allocation of its own, so that a step beyond its end is seen.
    export PYTORCH_NO_CUDA_MEMORY_CACHING=1
    status=0
    for tool in memcheck racecheck; do
        echo "== compute-sanitizer --tool $tool"
        compute-sanitizer --tool "$tool" --error-exitcode 9 "$PYTHON" -m benchmarks.gpu.sanitize || status=1
    done
    exit "$status"
    ;;
tune)
    shift
    exec "$PYTHON" -m benchmarks.gpu.tune "$@"
    ;;
*)
    exec "$PYTHON" -m benchmarks.gpu "$@"
    ;;
esac
