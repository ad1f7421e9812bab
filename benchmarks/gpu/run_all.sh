#!/bin/sh
# Everything on the GPU that is here: checks first, then every section, the most valuable first.
#
#   benchmarks/gpu/run_all.sh [--seconds 440] [--sections a,b] [--no-check] [--earlier FILE] ...
#   benchmarks/gpu/run_all.sh sanitize [--seconds 240]      memcheck, then racecheck
#   benchmarks/gpu/run_all.sh tune [--seconds 300]          launch options, best first
#
# With -h each says what it takes. PYTHON names the interpreter; otherwise it is the project's own
# environment's, or python3. README.md beside this says what is written and what to do with it.
cd "$(dirname "$0")/../.." || exit 1
if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    [ -x .venv/bin/python ] && PYTHON=.venv/bin/python
fi
export PYTHONUNBUFFERED=1
case " $* " in *" --tiny "*) export TRITON_INTERPRET=1 ;; esac
case "${1:-}" in
sanitize | tune)
    mode=".$1"
    shift
    ;;
*)
    mode=
    ;;
esac
exec "$PYTHON" -m "benchmarks.gpu$mode" "$@"
