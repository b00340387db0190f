"""DeepSpeed as the trainer sees it: one `DeepspeedStrategy` per process, one process per rank."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from openrlhf.config import DeepspeedConfig, OptimizerConfig
from openrlhf.utils.deepspeed import checkpointing
from openrlhf.utils.deepspeed.config import inference_config, training_config
from openrlhf.utils.deepspeed.library import import_deepspeed, partitioned_loading
from openrlhf.utils.deepspeed.optimizer import build_optimizer, build_scheduler
from openrlhf.utils.deepspeed.parameters import restore_rotary_buffers
from openrlhf.utils.devices import current_device, dist_backend, set_device
from openrlhf.utils.network import LOOPBACK, is_loopback, use_interface_of
from openrlhf.utils.rng import set_seed
from openrlhf.utils.seeds import Stream, derive_seed

ModelT = TypeVar("ModelT", bound=nn.Module)
Engine = Any
"""A `deepspeed.DeepSpeedEngine`; not imported here, because importing DeepSpeed takes seconds."""

ENVIRONMENT = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK")


class DeepspeedStrategy:
    """Process group, model engines, optimizer steps and checkpoints of one rank.

    Everything that says "collective" has to be called by every rank, in the same order.
    """

    def __init__(self, *, seed: int = 42) -> None:
        self.seed = seed

    # Process group

    def setup_distributed(self, timeout: timedelta = timedelta(minutes=30)) -> None:
        """Joins the process group that MASTER_ADDR, MASTER_PORT, RANK, WORLD_SIZE and LOCAL_RANK describe.

        A collective waits at most `timeout` for a missing rank. Seeds the generators from seed and rank, so that ranks
        draw different numbers; what must be equal on all ranks (data order) needs a generator of its own.

        Where MASTER_ADDR is loopback, rank 0's store listens there alone, where torch's own listens everywhere.
        One that torchrun has started before is torchrun's, as it is.

        Raises:
            OSError: rank 0 cannot listen on that loopback address and MASTER_PORT.
            ValueError: one of those variables is missing, or LOCAL_RANK has no GPU.
        """
        missing = [name for name in ENVIRONMENT if name not in os.environ]
        if missing:
            raise ValueError(f"set {', '.join(missing)} in the environment of every rank before setup_distributed()")
        set_device(int(os.environ["LOCAL_RANK"]))
        is_torchruns = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        address = loopback_address(os.environ["MASTER_ADDR"])
        if address and not is_torchruns and not dist.is_initialized():
            _join_on_loopback(address, timeout)
        import_deepspeed().init_distributed(dist_backend(), auto_mpi_discovery=False, timeout=timeout)
        set_seed(derive_seed(self.seed, Stream.RANK, self.rank))
        if not self.is_rank_0():
            from transformers.utils import logging as transformers_logging

            transformers_logging.disable_progress_bar()

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def world_size(self) -> int:
        return dist.get_world_size()

    def is_rank_0(self) -> bool:
        return self.rank == 0

    # Models

    def load_model(self, load: Callable[[], ModelT], deepspeed: DeepspeedConfig) -> ModelT:
        """Calls `load`, which builds a transformers model; under ZeRO-3 partitioned from the start. Collective."""
        if deepspeed.zero_stage < 3:
            return load()
        with partitioned_loading(inference_config(deepspeed, world_size=self.world_size)):
            model = load()
        restore_rotary_buffers(model)
        return model

    def prepare_train(
        self, model: nn.Module, *, deepspeed: DeepspeedConfig, optimizer: OptimizerConfig, num_optimizer_steps: int
    ) -> Engine:
        """Wraps a model from `load_model` for training: AdamW, cosine schedule, clipping, ZeRO. Collective.

        Call the engine, not the module inside it: its forward is what ZeRO hooks into. The engine is in training mode:
        transformers checkpoints activations in no other, and `from_pretrained` leaves a model in evaluation mode.
        """
        adamw = build_optimizer(model, optimizer, offload=deepspeed.adam_offload)
        engine, *_ = import_deepspeed().initialize(
            model=model,
            optimizer=adamw,
            lr_scheduler=lambda basic: build_scheduler(basic, optimizer, num_steps=num_optimizer_steps),
            config=training_config(deepspeed, world_size=self.world_size),
            dist_init_required=False,
        )
        engine.train()  # returns nothing
        return engine

    def prepare_eval(self, model: nn.Module, *, deepspeed: DeepspeedConfig) -> nn.Module:
        """A model from `load_model` that only runs forward: a ZeRO-3 engine, or below ZeRO-3 the module on its device.

        Collective.
        """
        model.requires_grad_(False)
        if deepspeed.zero_stage < 3:
            return model.to(current_device()).eval()
        engine, *_ = import_deepspeed().initialize(
            model=model, config=inference_config(deepspeed, world_size=self.world_size), dist_init_required=False
        )
        engine.eval()  # returns nothing
        return engine

    # Optimizer steps

    def backward(self, engine: Engine, loss: Tensor, *, is_last: bool) -> None:
        """Adds one micro-batch's gradients; `is_last` marks the last before `step`. Collective.

        The optimizer step is taken on the sum over micro-batches and the mean over ranks of the losses given here, so
        scale them such that this is the batch's loss. Every rank needs the same number of micro-batches; one that has
        too few runs forwards on any tokens and passes `0 * output.sum()`.
        """
        engine.set_gradient_accumulation_boundary(is_last)
        engine.backward(loss, scale_wrt_gas=False)

    def step(self, engine: Engine) -> float:
        """Clips, takes the optimizer and scheduler step, clears gradients. Collective.

        Returns the L2 norm of the whole batch's gradient, over all parameters of all ranks, before clipping.

        Raises:
            FloatingPointError: the norm is not finite. On every rank, and the weights are as they were: DeepSpeed's own
                optimizers skip such a step, with a line in the log and no more; torch's is not reached.
        """
        norm = None
        if isinstance(engine.optimizer, torch.optim.Optimizer):  # fp32 at stage 0: DeepSpeed keeps no norm
            norm = float(torch.nn.utils.get_total_norm([p.grad for p in engine.parameters() if p.grad is not None]))
            _check_norm(norm)
        engine.step()
        if norm is None:
            norm = float(engine.get_global_grad_norm())
        _check_norm(norm if engine.was_step_applied() else math.inf)
        return norm

    # Saving

    save_checkpoint = staticmethod(checkpointing.save_checkpoint)
    find_checkpoint = staticmethod(checkpointing.find_checkpoint)
    load_checkpoint = staticmethod(checkpointing.load_checkpoint)
    save_hf_model = staticmethod(checkpointing.save_hf_model)


def get_strategy(*, seed: int, timeout: timedelta = timedelta(minutes=30)) -> DeepspeedStrategy:
    """A strategy that has joined the process group of the environment (see `DeepspeedStrategy.setup_distributed`)."""
    strategy = DeepspeedStrategy(seed=seed)
    strategy.setup_distributed(timeout)
    return strategy


def loopback_address(master: str) -> str | None:
    """The address of MASTER_ADDR if it can only mean this machine: a host's name may mean loopback here alone."""
    address = LOOPBACK if master == "localhost" else master
    try:
        return address if is_loopback(address) else None
    except ValueError:
        return None


def _join_on_loopback(address: str, timeout: timedelta) -> None:
    """Makes the process group of the environment."""
    rank, world_size, port = (int(os.environ[key]) for key in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    use_interface_of(address)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listen_fd = socket.create_server((address, port), family=family).detach() if rank == 0 else None
    store = dist.TCPStore(address, port, world_size, rank == 0, timeout, master_listen_fd=listen_fd)
    dist.init_process_group(dist_backend(), store=store, rank=rank, world_size=world_size, timeout=timeout)


def _check_norm(norm: float) -> None:
    if not math.isfinite(norm):
        raise FloatingPointError(f"the norm of the gradient is {norm}")
