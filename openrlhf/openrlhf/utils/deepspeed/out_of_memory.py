"""Memory that runs out in the middle of a forward or backward pass: what has begun is undone, and other ranks go on.

Which collectives a pass makes follows from the model, the ZeRO stage and what happened before, not from its batch. So a
rank whose pass ends early runs a stand-in on a batch of one token and leaves out the collectives that it has taken part
in already; its peers notice nothing. What that gives, on all ranks, are numbers without meaning. The caller lets the
ranks agree that this happened, drops them (`drop_gradients`) and repeats.
"""

from __future__ import annotations

import copy
import importlib
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from openrlhf.errors import UserError
from openrlhf.utils.devices import release_cached_memory, synchronize

T = TypeVar("T")

COLLECTIVES = frozenset(
    {
        "all_gather", "all_gather_into_tensor", "all_gather_coalesced", "all_reduce", "all_reduce_coalesced",
        "all_to_all", "all_to_all_single", "barrier", "broadcast", "reduce", "reduce_scatter", "reduce_scatter_tensor",
    }
)  # fmt: skip
Signature = tuple[str, tuple[tuple[int, torch.dtype], ...]]
"""A collective's name, and elements and type of each of its tensors."""


def in_step(engine: Any, work: Callable[[], T], stand_in: Callable[[], Any]) -> T | None:
    """`work()`, or None where memory ran out in it. Every rank calls it for the same pass.

    Then all gradients that this rank has accumulated are gone, and `stand_in()` has run for the other ranks: on all of
    them `drop_gradients` has to come before the next optimizer step.

    Args:
        engine: what `work` runs: a DeepSpeed engine, or a module below ZeRO-3.
        work: a forward, or a forward and the backward of its loss.
        stand_in: the same on an empty batch.

    Raises:
        UserError: this rank cannot get back in step with the others.
    """
    alone = dist.get_world_size() == 1
    partitions = Partitions.of(engine)
    if partitions is not None and not alone:
        partitions.release()  # so that all ranks start alike
    output = _attempt(engine, work, stand_in, partitions, alone=alone)
    if partitions is not None and not alone:
        partitions.release()  # what a stand-in has left out to gather must not pass for parameters
    return output


def _attempt(
    engine: Any, work: Callable[[], T], stand_in: Callable[[], Any], partitions: Partitions | None, *, alone: bool
) -> T | None:
    before = None if partitions is None else partitions.state()
    with logged_collectives() as log:
        try:
            return work()
        except torch.OutOfMemoryError:
            pass  # all that its traceback holds must be gone before anything else is allocated
        drop_gradients(engine)
        if partitions is not None and before is not None:
            partitions.restore(before)
        release_cached_memory()
        if not alone:
            log.leave_out_what_was_done()
            stand_in()
            log.check_nothing_is_left_out()
    return None


def drop_gradients(engine: Any) -> None:
    """Forgets all gradients since the last optimizer step, a backward pass that was broken off among them."""
    if not hasattr(engine, "module"):
        return
    synchronize()  # what DeepSpeed does on streams of its own
    engine.zero_grad()
    optimizer = engine.optimizer
    if not hasattr(optimizer, "_backward_hook_state"):  # torch's own, or none
        return
    optimizer.zero_grad(set_to_none=True)
    hooks = optimizer._backward_hook_state
    hooks.reset_for_new_step()
    hooks.backward_active_depth = hooks.remaining_grad_acc_hooks = 0
    if hasattr(optimizer, "parameter_offload"):
        _drop_of_stage_3(optimizer)
    elif hasattr(optimizer, "ipg_buckets"):
        _drop_of_stages_1_and_2(optimizer)


def _drop_of_stage_3(optimizer: Any) -> None:
    # Its `zero_grad` has set the counter at which a backward pass overwrites what is accumulated.
    for bucket in optimizer.ipg_buckets.values():
        bucket.clear_params()
    optimizer._offload_boundary_param_ids.clear()


def _drop_of_stages_1_and_2(optimizer: Any) -> None:
    for bucket in optimizer.ipg_buckets.values():
        bucket.clear()
    optimizer.extra_large_param_to_reduce.clear()
    optimizer.params_already_reduced[:] = [False] * len(optimizer.params_already_reduced)
    optimizer._release_ipg_buffers()
    optimizer._release_preflattened_grad_buffers()
    optimizer.micro_step_id = -1  # as after an optimizer step
    if optimizer.cpu_offload:
        optimizer.reset_cpu_buffers()
        optimizer._offload_accumulated_param_ids = set()
    for group in set(optimizer.averaged_gradients) | set(optimizer.all_grad_tensors):
        optimizer.averaged_gradients[group] = optimizer.all_grad_tensors[group] = None


class CollectiveLog:
    """DeepSpeed's way to torch's collectives, which keeps count of them."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend
        self._done: list[tuple[Signature, Tensor | None]] = []
        self._left_out: deque[tuple[Signature, Tensor | None]] = deque()

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._backend, name)
        return partial(self._collective, name, attribute) if name in COLLECTIVES else attribute

    def leave_out_what_was_done(self) -> None:
        """From here on, the collectives so far are not made again where they come up again."""
        self._left_out = deque(self._done)

    def check_nothing_is_left_out(self) -> None:
        if self._left_out:
            raise _out_of_step(f"{len(self._left_out)} collectives too few")

    def _collective(self, name: str, collective: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        tensors = list(_tensors([*args, *kwargs.values()]))
        signature = (name, tuple((tensor.numel(), tensor.dtype) for tensor in tensors))
        if self._left_out:
            expected, result = self._left_out.popleft()
            if expected != signature:
                raise _out_of_step(f"{signature} in place of {expected}")
            if result is not None:
                tensors[0].copy_(result)
            return _Done()
        handle = collective(*args, **kwargs)
        # Numbers by which DeepSpeed compares ranks have to be there the second time; all others need not.
        keep = name == "broadcast" and not tensors[0].is_floating_point()
        self._done.append((signature, tensors[0].clone() if keep else None))
        return handle


class _Done:
    """The handle of a collective that is over."""

    def wait(self, *_: Any) -> bool:
        return True

    def is_completed(self) -> bool:
        return True


@contextmanager
def logged_collectives() -> Iterator[CollectiveLog]:
    """Within: DeepSpeed's collectives go through a log."""
    comm: Any = importlib.import_module("deepspeed.comm.comm")
    backend, comm.cdb = comm.cdb, CollectiveLog(comm.cdb)
    try:
        yield comm.cdb
    finally:
        comm.cdb = backend


@dataclass(frozen=True, kw_only=True)
class PartitionState:
    """What ZeRO-3 knows of a model between two passes."""

    trace: dict[str, Any]
    """Of the coordinator."""
    pending: dict[Any, int]
    """By module: the backward passes that it expects."""
    depth: int
    """Of the stack of modules whose forward runs."""


class Partitions:
    """The parameters of a ZeRO-3 engine, and what DeepSpeed has traced of their use."""

    @classmethod
    def of(cls, engine: Any) -> Partitions | None:
        """None below stage 3."""
        optimizer: Any = getattr(engine, "optimizer", None)
        offload: Any = getattr(optimizer, "parameter_offload", optimizer)
        if not hasattr(offload, "get_param_coordinator"):
            return None
        return cls(engine.module, offload.get_param_coordinator())

    def __init__(self, module: nn.Module, coordinator: Any) -> None:
        self._parameters: list[Any] = list(module.parameters())
        self._modules: list[Any] = list(module.modules())
        self._coordinator = coordinator
        self._stack = importlib.import_module("deepspeed.runtime.zero.parameter_offload").FWD_MODULE_STACK

    def state(self) -> PartitionState:
        return PartitionState(
            trace={name: _copied(value) for name, value in vars(self._coordinator).items()},
            pending={m: m.__dict__.get("applied_pre_backward_ref_cnt", 0) for m in self._modules},
            depth=len(self._stack),
        )

    def restore(self, state: PartitionState) -> None:
        """After a pass that was broken off."""
        self.release()
        vars(self._coordinator).update((name, _copied(value)) for name, value in state.trace.items())
        for module, count in state.pending.items():
            module.ds_recompute_parameters.clear()
            if "applied_pre_backward_ref_cnt" in module.__dict__:
                module.applied_pre_backward_ref_cnt = count
        del self._stack[state.depth :]

    def release(self) -> None:
        """Gives up all gathered parameters, those that DeepSpeed would keep whole too."""
        self._coordinator._clean_inflight_param_registry()
        for parameter in self._parameters:
            parameter.ds_active_sub_modules.clear()
            if parameter.ds_status.name == "INFLIGHT":  # its gathering was broken off
                parameter.ds_status = type(parameter.ds_status).AVAILABLE
            parameter.partition()


def _copied(value: Any) -> Any:
    """Containers of plain Python, and those within them, are copied; what else they hold is not."""
    if isinstance(value, dict):
        same = copy.copy(value)  # keeps the default of a defaultdict
        same.update((key, _copied(item)) for key, item in value.items())
        return same
    return type(value)(map(_copied, value)) if isinstance(value, (list, deque, set)) else value


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from _tensors(value)


def _out_of_step(why: str) -> UserError:
    return UserError(
        f"memory ran out, and this rank cannot get back in step with the others ({why}); give packs fewer tokens "
        "(--pack_tokens, or --micro_train_batch_size and --micro_rollout_batch_size)"
    )
