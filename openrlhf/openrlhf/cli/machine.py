"""What this machine and its environment allow, asked without loading torch or Ray (which takes seconds)."""

from __future__ import annotations

import ctypes
import glob
import os
from collections.abc import Mapping
from pathlib import Path

from openrlhf.config import Precision

CUDA_ERROR_NO_DEVICE = 100
CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
SOCKET_PATH_LIMIT = 107
"""Bytes of a Unix socket's path on Linux."""
RAY_SOCKET = "/ncp-ray-abcdefgh/session_2026-01-31_23-59-59_999999_4194304/sockets/plasma_store"
"""The longest path that Ray makes a socket at, below its folder for temporary files."""


def driver_num_gpus() -> int | None:
    """GPUs that the NVIDIA driver shows this process (CUDA_VISIBLE_DEVICES counts); None where it does not say."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:  # no driver; or it lies where only torch looks
        return None if glob.glob("/dev/nvidia[0-9]*") else 0
    count = ctypes.c_int(0)
    code = cuda.cuInit(0) or cuda.cuDeviceGetCount(ctypes.byref(count))
    return {0: count.value, CUDA_ERROR_NO_DEVICE: 0}.get(code)


def driver_gpu_memory() -> list[int]:
    """Bytes of memory of each GPU that the driver shows this process; empty where it shows none.

    torch would open a context of some hundred MiB on the card for this question, which the workers need.
    """
    if not driver_num_gpus():
        return []
    cuda = ctypes.CDLL("libcuda.so.1")
    sizes = []
    for index in range(driver_num_gpus() or 0):
        device, size = ctypes.c_int(0), ctypes.c_size_t(0)
        if cuda.cuDeviceGet(ctypes.byref(device), index) == 0 and (
            cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device) == 0
        ):
            sizes.append(size.value)
    return sizes


def host_memory() -> int:
    """Bytes of memory of this machine, or of the container if it has a limit."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for path in CGROUP_LIMITS:
        try:
            limit = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if limit.isdigit():  # not "max"
            total = min(total, int(limit))
    return total


def default_pack_tokens() -> str:
    """By a trial, which needs a GPU."""
    return "auto" if driver_num_gpus() else "micro"


def default_reference_dtype() -> Precision:
    """What scores are computed in: bfloat16 is noisier than the first reward tier is high (docs/experiments.md)."""
    return "tf32" if driver_num_gpus() else "fp32"


def temporary_folder_problem(environ: Mapping[str, str]) -> str | None:
    """Why Ray could not start with these environment variables: its sockets' paths would be too long."""
    variable = next((name for name in ("RAY_TMPDIR", "TMPDIR") if environ.get(name)), None)
    if variable is None or "RAY_ADDRESS" in environ:
        return None
    folder = environ[variable]
    room = SOCKET_PATH_LIMIT - len(RAY_SOCKET)
    if len(os.fsencode(folder)) <= room:
        return None
    return f"{variable}={folder}: too long for Ray's sockets; set RAY_TMPDIR to a path of at most {room} bytes"
