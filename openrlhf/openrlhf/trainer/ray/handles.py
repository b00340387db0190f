"""What callers know of workers in other processes: Ray's handles, as types.

Ray makes a handle's methods at run time. These protocols name them, so that a misspelt one is found before a run.
"""

from __future__ import annotations

from typing import Any, Protocol


class RemoteMethod(Protocol):
    """A method of a worker: `remote` starts it there and returns a reference to its result."""

    def remote(self, *args: Any, **kwargs: Any) -> Any: ...


class EngineHandle(Protocol):
    """A `trainer.ray.vllm_engine.LLMRayActor` elsewhere."""

    @property
    def start(self) -> RemoteMethod: ...
    @property
    def generate(self) -> RemoteMethod: ...
    @property
    def init_weight_transfer(self) -> RemoteMethod: ...
    @property
    def start_weight_update(self) -> RemoteMethod: ...
    @property
    def update_weights(self) -> RemoteMethod: ...
    @property
    def finish_weight_update(self) -> RemoteMethod: ...
    @property
    def abort_weight_update(self) -> RemoteMethod: ...


class WorkerHandle(Protocol):
    """A `trainer.ray.role.BasePPORole` elsewhere; `forward` is the reference model's."""

    @property
    def open_rendezvous(self) -> RemoteMethod: ...
    @property
    def join_group(self) -> RemoteMethod: ...
    @property
    def init_model(self) -> RemoteMethod: ...
    @property
    def forward(self) -> RemoteMethod: ...
    @property
    def find_pack_tokens(self) -> RemoteMethod: ...
