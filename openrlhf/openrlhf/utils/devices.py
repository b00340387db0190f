"""The one place that knows whether this process runs on CUDA/NCCL or on the CPU/gloo."""

from __future__ import annotations

import resource
import sys
from typing import Literal

import torch

GIB = 2**30


def device_type() -> Literal["cuda", "cpu"]:
    """`cuda` where this process sees a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def dist_backend() -> Literal["nccl", "gloo"]:
    """The `torch.distributed` backend that goes with `device_type()`."""
    return "nccl" if device_type() == "cuda" else "gloo"


def num_gpus() -> int:
    """How many GPUs this process sees."""
    return torch.cuda.device_count()


def set_device(local_rank: int) -> None:
    """Makes GPU `local_rank` the current one; nothing to do on the CPU.

    Raises ValueError where there are fewer GPUs. A Ray worker sees only its own GPUs, so its local rank is 0.
    """
    if device_type() == "cpu":
        return
    if local_rank >= num_gpus():
        raise ValueError(
            f"local rank {local_rank}, but this process sees {num_gpus()} GPU(s); start fewer ranks per node"
        )
    torch.cuda.set_device(local_rank)


def current_device() -> torch.device:
    """The device that new tensors of this process belong on."""
    return torch.device("cuda", torch.cuda.current_device()) if device_type() == "cuda" else torch.device("cpu")


def synchronize() -> None:
    """Waits for the GPU's queued work, so that a clock read afterwards means something."""
    if device_type() == "cuda":
        torch.cuda.synchronize()


def release_cached_memory() -> None:
    """Gives what torch's allocator holds without using it back to the GPU; nothing to do on the CPU."""
    if device_type() == "cuda":
        torch.cuda.empty_cache()


def device_memory() -> tuple[int, int]:
    """Bytes that this process could still get of its GPU, what torch's allocator holds without use included, and all.

    Raises ValueError where there is no GPU.
    """
    if device_type() == "cpu":
        raise ValueError("this process has no GPU")
    release_cached_memory()
    return torch.cuda.mem_get_info()


def reset_peak_memory() -> None:
    """Peaks count from here; nothing to do on the CPU."""
    if device_type() == "cuda":
        torch.cuda.reset_peak_memory_stats()


def peak_memory_bytes() -> int:
    """Peak of the memory that tensors took on this process's GPU since `reset_peak_memory`; 0 on the CPU."""
    return torch.cuda.max_memory_allocated() if device_type() == "cuda" else 0


def peak_memory_gib() -> float:
    """Peak memory of this process so far in GiB: allocated on its GPU, or resident where there is none."""
    if device_type() == "cuda":
        return torch.cuda.max_memory_allocated() / GIB
    bytes_per_unit = 1 if sys.platform == "darwin" else 1024  # getrusage counts KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * bytes_per_unit / GIB
