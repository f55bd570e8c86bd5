#!/usr/bin/env bash
# Runs pytest, and what fails once more, alone: `run-tests.sh NAME "OPTIONS OF THE FIRST RUN" OPTIONS...`
#
# Hundreds of these tests force races between threads, processes and servers, several at a time on a machine that others
# use as well. A fault of the code fails in a quiet process, too; what does not is shown, and is worth a look, but it
# does not fail the suite.
set -u
name=$1 first=$2
shift 2
pytest=(.venv/bin/python -m pytest -o "cache_dir=.pytest_cache/$name")

# shellcheck disable=SC2086  # several options
"${pytest[@]}" $first "$@" && exit 0
echo "==== $name: what failed above is run once more, alone ====" >&2
"${pytest[@]}" --last-failed --last-failed-no-failures none "$@" || exit 1
case $first in *--cov*) .venv/bin/coverage report --format=total ;; esac
