#!/usr/bin/env bash
# Makes the virtual environment $1 with the first Python >= 3.11 that can, or says what is missing.
set -u
target=$1

for python in ${PYTHON:-python3 python3.13 python3.12 python3.11 python}; do
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue
    "$python" -m venv --clear "$target" && exit 0
    rm -rf "$target"
done

echo "No Python >= 3.11 here can make a virtual environment. On Debian: apt-get install python3 python3-venv;" >&2
echo "elsewhere install one and name it: make PYTHON=/path/to/python3.11 ..." >&2
exit 1
