"""The trainer's end of the weight transfer to the vLLM engines, over NCCL or gloo.

Rank 0 of the actor group and every vLLM worker form a group of their own, apart from the trainer's default group.
The weights travel in flat buckets, one broadcast each:

    start_weight_update on every engine -> [bucket: update_weights call + broadcast]* -> finish_weight_update

The last call also resets the engine's prefix cache. Over NCCL the engines use vLLM's own receiver
(`vllm.distributed.weight_transfer`), over gloo the one in `vllm_worker_wrap`.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import ray
import torch
import torch.distributed as dist
from torch import Tensor

from openrlhf.config import SyncBackend

if TYPE_CHECKING:
    from ray import ObjectRef

    from openrlhf.trainer.ray.handles import EngineHandle

T = TypeVar("T")

DEFAULT_BUCKET_BYTES = 512 * 2**20
DEFAULT_TIMEOUT_S = 45.0


class WeightSender:
    """Sends full weights to all engines; lives in rank 0 of the actor group.

    A transfer that raises leaves the engines with undefined weights, and they refuse to generate: end the job.
    """

    def __init__(
        self,
        *,
        backend: SyncBackend,
        tensor_parallel_size: int = 1,
        bucket_bytes: int = DEFAULT_BUCKET_BYTES,
        timeout_s: float = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._backend = backend
        self._workers_per_engine = tensor_parallel_size
        self._bucket_bytes = bucket_bytes
        self._timeout_s = timeout_s
        self._engines: list[EngineHandle] = []

    def connect(self, engines: list[EngineHandle]) -> None:
        """Builds the group with all (started) engines. Once, before the first `send`."""
        self._engines = engines
        address = ray.util.get_node_ip_address()
        listener = socket.create_server((address, 0))
        world_size = 1 + len(engines) * self._workers_per_engine
        rendezvous = {"master_address": address, "master_port": listener.getsockname()[1], "world_size": world_size}
        calls = [
            engine.init_weight_transfer.remote(
                {**rendezvous, **self._wire_format("init"), "rank_offset": 1 + index * self._workers_per_engine}
            )
            for index, engine in enumerate(engines)
        ]
        self._group: _Group
        if self._backend == "nccl":
            listener.close()
            device = torch.device("cuda", torch.cuda.current_device())
            self._group = self._together(lambda: _NcclGroup(rendezvous, device), calls)
        else:
            self._group = self._together(lambda: _GlooGroup(listener, world_size, self._timeout_s), calls)

    def send(self, named_tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Replaces the engines' weights and resets their prefix caches.

        Args:
            named_tensors: Hugging Face parameter names with full tensors. Each is copied before the next is asked for,
                so under ZeRO-3 a generator can gather some parameters, yield them and release them again; the other
                ranks run through the same generator to take part in the gathering.

        Raises:
            ray.exceptions.RayActorError: an engine is dead.
            RuntimeError: an engine failed, or has requests in flight.
            TimeoutError: an engine did not answer within `timeout_s`.
        """
        try:
            self._on_engines("start_weight_update")
            for bucket in make_buckets(named_tensors, self._bucket_bytes, self._group.device):
                self._send_bucket(bucket)
            self._on_engines("finish_weight_update")
        except BaseException as error:
            for engine in self._engines:
                engine.abort_weight_update.remote(f"the weight transfer broke off: {type(error).__name__}: {error}")
            raise

    def _send_bucket(self, bucket: Bucket) -> None:
        update_info = {**bucket.update_info(), **self._wire_format("update")}
        calls = [engine.update_weights.remote(update_info) for engine in self._engines]
        if bucket.data.is_cuda:
            torch.cuda.current_stream().synchronize()  # the broadcast runs in another thread
        self._together(lambda: self._group.broadcast(bucket.data), calls)

    def _wire_format(self, stage: str) -> dict[str, Any]:
        """Tells vLLM's NCCL receiver to expect one packed broadcast per bucket: at `init`, up to 0.26 per `update`."""
        if self._backend != "nccl":
            return {}
        from vllm.distributed.weight_transfer.nccl_engine import NCCLWeightTransferInitInfo

        told_at = "init" if "packed" in NCCLWeightTransferInitInfo.__dataclass_fields__ else "update"
        return {"packed": True, "packed_buffer_size_bytes": self._bucket_bytes} if stage == told_at else {}

    def _on_engines(self, method: str) -> None:
        self._together(lambda: None, [getattr(engine, method).remote() for engine in self._engines])

    def _together(self, work: Callable[[], T], calls: Sequence[ObjectRef[Any]]) -> T:
        """Runs `work` here while the engines run `calls`; raises as soon as one of them fails or time is up.

        `work` gets a daemon thread: blocked in a collective whose other end is gone it must not keep anybody.
        """
        deadline = time.monotonic() + self._timeout_s
        result: Future[T] = Future()
        threading.Thread(target=_fulfil, args=(result, work), daemon=True).start()
        pending = list(calls)
        while pending or not result.done():
            if result.done():
                result.result()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"weight transfer: {len(pending)} of {len(calls)} vLLM engines did not answer within "
                    f"{self._timeout_s:g} s"
                )
            if pending:
                ready, pending = ray.wait(pending, timeout=0.1)
                ray.get(ready)
            else:
                time.sleep(0.001)
        return result.result()


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Tensors of one dtype, laid end to end."""

    names: list[str]
    shapes: list[list[int]]
    dtype: torch.dtype
    data: Tensor
    """(bytes,) uint8"""

    def update_info(self) -> dict[str, Any]:
        """What vLLM's receivers want to know."""
        dtype_names = [str(self.dtype).removeprefix("torch.")] * len(self.names)
        return {"names": self.names, "dtype_names": dtype_names, "shapes": self.shapes}


def make_buckets(named_tensors: Iterable[tuple[str, Tensor]], max_bytes: int, device: torch.device) -> Iterator[Bucket]:
    """Copies tensors into flat buckets of at most `max_bytes` (a larger tensor goes alone).

    A bucket's memory is used again for the next one. One dtype per bucket keeps every tensor aligned.
    """
    buffer = torch.empty(max_bytes, dtype=torch.uint8, device=device)
    names: list[str] = []
    shapes: list[list[int]] = []
    used, dtype = 0, torch.uint8
    for name, tensor in named_tensors:
        if names and (tensor.dtype != dtype or used + tensor.nbytes > max_bytes):
            yield Bucket(names=names, shapes=shapes, dtype=dtype, data=buffer[:used])
            names, shapes, used = [], [], 0
        if tensor.nbytes > max_bytes:
            data = _as_bytes(tensor).to(device)
            yield Bucket(names=[name], shapes=[list(tensor.shape)], dtype=tensor.dtype, data=data)
            continue
        buffer[used : used + tensor.nbytes].copy_(_as_bytes(tensor))
        names.append(name)
        shapes.append(list(tensor.shape))
        used, dtype = used + tensor.nbytes, tensor.dtype
    if names:
        yield Bucket(names=names, shapes=shapes, dtype=dtype, data=buffer[:used])


def unpack_bucket(
    data: Tensor, names: list[str], dtype_names: list[str], shapes: list[list[int]]
) -> list[tuple[str, Tensor]]:
    """The bucket's named tensors, as views of `data`."""
    tensors, start = [], 0
    for name, dtype_name, shape in zip(names, dtype_names, shapes, strict=True):
        dtype = getattr(torch, dtype_name)
        end = start + torch.Size(shape).numel() * dtype.itemsize
        tensors.append((name, data[start:end].view(dtype).view(shape)))
        start = end
    return tensors


def gloo_process_group(store: dist.Store, rank: int, world_size: int, timeout_s: float) -> dist.ProcessGroup:
    """A process group that torch.distributed's default group knows nothing of."""
    return cast(dist.ProcessGroup, dist.ProcessGroupGloo(store, rank, world_size, timedelta(seconds=timeout_s)))


def broadcast_from_sender(group: dist.ProcessGroup, data: Tensor) -> None:
    """Blocks until `data` of rank 0 is here (or, on rank 0, has gone to everybody)."""
    options = dist.BroadcastOptions()
    options.rootRank = 0
    group.broadcast([data], options).wait()


class _Group(Protocol):
    device: torch.device
    """Where buckets are laid out."""

    def broadcast(self, data: Tensor) -> None: ...


class _GlooGroup:
    device = torch.device("cpu")

    def __init__(self, listener: socket.socket, world_size: int, timeout_s: float) -> None:
        address, port = listener.getsockname()[:2]
        timeout = timedelta(seconds=timeout_s)
        # The given socket listens on one address; a store that opens its own would listen on all.
        store = dist.TCPStore(address, port, world_size, True, timeout, master_listen_fd=listener.detach())
        self._group = gloo_process_group(store, 0, world_size, timeout_s)

    def broadcast(self, data: Tensor) -> None:
        broadcast_from_sender(self._group, data)


class _NcclGroup:
    def __init__(self, rendezvous: dict[str, Any], device: torch.device) -> None:
        from vllm.distributed.weight_transfer.nccl_common import trainer_init

        self.device = device
        torch.cuda.set_device(device)  # per thread
        self._communicator = trainer_init(rendezvous)

    def broadcast(self, data: Tensor) -> None:
        torch.cuda.set_device(self.device)
        stream = torch.cuda.current_stream()
        self._communicator.broadcast(data, src=0, stream=stream)
        stream.synchronize()


def _as_bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().view(-1).view(torch.uint8)


def _fulfil(result: Future[T], work: Callable[[], T]) -> None:
    try:
        result.set_result(work())
    except BaseException as error:  # handed over to the thread that waits for the result
        result.set_exception(error)
