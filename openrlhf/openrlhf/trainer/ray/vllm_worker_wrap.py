"""vLLM's worker extension: teaches vLLM to receive weights over gloo, for engines on the CPU.

vLLM imports this module in every worker process, by the name in `worker_extension_cls`, before it creates its weight
transfer engine; that import registers the `gloo` one. Import it nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from vllm.distributed.weight_transfer.base import (
    WeightTransferEngine,
    WeightTransferInitInfo,
    WeightTransferUpdateInfo,
)
from vllm.distributed.weight_transfer.factory import WeightTransferEngineFactory
from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from openrlhf.trainer.ray.weight_transfer import (
    DEFAULT_TIMEOUT_S,
    broadcast_from_sender,
    gloo_process_group,
    unpack_bucket,
)


class WorkerWrap:
    """Mixed into vLLM's worker class. Empty: naming it is what makes vLLM import this module."""


@dataclass(kw_only=True)
class GlooInitInfo(WeightTransferInitInfo):
    """Where the sender's store is and which ranks (from `rank_offset`) this engine's workers are."""

    master_address: str
    master_port: int
    rank_offset: int
    world_size: int


@dataclass(kw_only=True)
class GlooUpdateInfo(WeightTransferUpdateInfo):
    """The tensors of one bucket, in order."""

    names: list[str]
    dtype_names: list[str]
    shapes: list[list[int]]


class GlooWeightTransferEngine(WeightTransferEngine[GlooInitInfo, GlooUpdateInfo]):
    """Receives buckets from `WeightSender` and reloads them layer by layer, as from a checkpoint.

    The layerwise reload is needed on the CPU: Linear layers keep a packed copy of their weights, which writing to the
    parameters would not reach.
    """

    init_info_cls = GlooInitInfo
    update_info_cls = GlooUpdateInfo

    _group: dist.ProcessGroup | None = None

    def init_transfer_engine(self, init_info: GlooInitInfo) -> None:
        """Joins the sender's group."""
        timeout = timedelta(seconds=DEFAULT_TIMEOUT_S)
        store = dist.TCPStore(init_info.master_address, init_info.master_port, init_info.world_size, False, timeout)
        rank = init_info.rank_offset + self.parallel_config.rank
        self._group = gloo_process_group(store, rank, init_info.world_size, DEFAULT_TIMEOUT_S)

    def start_weight_update(self) -> None:
        """Prepares every layer for new weights."""
        initialize_layerwise_reload(self.model)

    def receive_weights(self, update_info: GlooUpdateInfo) -> None:
        """Receives and loads one bucket."""
        assert self._group is not None, "init_transfer_engine comes first"
        sizes = (
            torch.Size(shape).numel() * getattr(torch, dtype).itemsize
            for dtype, shape in zip(update_info.dtype_names, update_info.shapes, strict=True)
        )
        # Not reused: layers keep views of it until all their weights are there.
        data = torch.empty(sum(sizes), dtype=torch.uint8)
        broadcast_from_sender(self._group, data)
        tensors = unpack_bucket(data, update_info.names, update_info.dtype_names, update_info.shapes)
        self.model.load_weights(tensors)  # type: ignore[operator]  # every vLLM model has it

    def finish_weight_update(self) -> None:
        """Puts the new weights into use."""
        finalize_layerwise_reload(self.model, self.model_config)
        repack_tied_heads(self.model)

    def shutdown(self) -> None:
        """Leaves the group."""
        self._group = None


def repack_tied_heads(model: torch.nn.Module) -> None:
    """Packs LM heads again, which reloading leaves out where they share the embedding's weight.

    No weight arrives under a tied head's name, so the reload keeps ("Failed to load weights") the copy that was packed
    from the old embedding.
    """
    for module in model.modules():
        if isinstance(module, ParallelLMHead):
            module.quant_method.process_weights_after_loading(module)


WeightTransferEngineFactory.register_engine("gloo", GlooWeightTransferEngine)
