"""Imports DeepSpeed and transformers' side of it, the one place that does, on the accelerator of `utils.devices`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from openrlhf.utils.devices import device_type
from openrlhf.utils.logging import quiet_libraries


def import_deepspeed() -> ModuleType:
    """DeepSpeed, told to use the device that this process has.

    DeepSpeed picks its accelerator on import, and other libraries import it too: call this before anything else may.
    Its import takes seconds, so modules that only might need it call this inside their functions.
    """
    os.environ.setdefault("DS_ACCELERATOR", device_type())
    import deepspeed
    from deepspeed.runtime.zero.config import ZeroStageEnum

    # part of every checkpoint; up to Python 3.11.3 an enum pickles through `getattr`, which `weights_only` refuses
    ZeroStageEnum.__reduce_ex__ = lambda self, protocol: (ZeroStageEnum, (self.value,))
    if device_type() == "cpu":
        # a shared-memory all-reduce for inference, which we never call: without this line, the first process group
        # of a machine compiles it for half a minute
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    quiet_libraries()
    return deepspeed


@contextmanager
def partitioned_loading(config: dict[str, Any]) -> Iterator[None]:
    """Within: transformers builds and loads models partitioned (ZeRO-3), so that no rank ever holds a whole one.

    transformers keeps only a weak reference to this setting, process-wide. It is unset at the end, so that a second
    model of the process (a reference model below ZeRO-3) is not partitioned by accident.
    """
    import_deepspeed()
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    setting = HfDeepSpeedConfig(config)
    try:
        yield
    finally:
        unset_hf_deepspeed_config()
        del setting
