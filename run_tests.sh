#!/usr/bin/env bash
# The checks of this repository, on a CPU machine: format, lint, types, shell scripts, unit and integration tests.
#
#   ./run_tests.sh                  # everything
#   ./run_tests.sh -k rewards       # pytest arguments go to both pytest runs
#
# Every stage runs, also after one that failed; the exit code is 0 only if all passed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

scripts/setup_cpu_env.sh
bin=${VENV:-.venv}/bin
export RAY_worker_niceness=0 # Ray's default would starve its workers on a small machine
export RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 # all of Ray's sockets on loopback
mapfile -t shell_scripts < <(git ls-files '*.sh' .ci/run)

failed=()
stage() {
  local name=$1 start=$SECONDS
  shift
  printf '\n== %s: %s\n' "$name" "$*"
  if "$@"; then
    printf '== %s: passed in %d s\n' "$name" $((SECONDS - start))
  else
    printf '== %s: FAILED after %d s\n' "$name" $((SECONDS - start))
    failed+=("$name")
  fi
}

pytest() {
  local code=0
  "$bin/python" -m pytest "$@" || code=$?
  # 5: no test matched, which is fine when the caller chose the tests.
  [[ $code == 0 || $code == 5 && $chosen == yes ]]
}
chosen=$([[ $# == 0 ]] && echo no || echo yes)

stage format "$bin/ruff" format --check .
stage lint "$bin/ruff" check .
stage types "$bin/mypy"
stage shell "$bin/shellcheck" "${shell_scripts[@]}"
stage "unit tests" pytest tests/unit "$@"
stage "integration tests" pytest tests/integration "$@"

if ((${#failed[@]})); then
  printf '\nfailed: %s\n' "$(IFS=, && echo "${failed[*]}")"
  exit 1
fi
printf '\nall passed in %d s\n' "$SECONDS"
