"""vLLM engines as Ray actors: many `generate` calls at once, one continuous batch.

Every trainer rank asks for its own prompts, one `generate` call per prompt. A single asyncio task steps vLLM while
anything waits and resolves each call as soon as its group is finished, so scoring starts while later prompts still
generate. vLLM is built and stepped in one thread of its own, which leaves the actor's event loop free to take calls.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from openrlhf.config import EngineConfig, SamplingConfig
from openrlhf.trainer.ray.handles import EngineHandle
from openrlhf.trainer.ray.placement import in_bundle, reserve_engine_gpus
from openrlhf.trainer.ray.vllm_api import Completion, build_engine, read_completion, sampling_params
from openrlhf.utils.network import use_interface_of

if TYPE_CHECKING:
    from vllm import LLMEngine

T = TypeVar("T")

DEFAULT_CPU_KV_CACHE_GIB = 2.0
"""91,000 tokens of a 135M model (30 layers, 3 KV heads of 64) in bf16, half as many in fp32."""

QUIET_ENV_VARS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}


class LLMRayActor:
    """One vLLM engine. Becomes an async Ray actor in `create_vllm_engines`; `start` before anything else.

    Weights change only between generations: `start_weight_update` is refused while requests are in flight, and
    `generate` calls that arrive during an update wait for its end.
    """

    def __init__(
        self,
        *,
        model: str,
        config: EngineConfig,
        stop_token_ids: Sequence[int] = (),
        cpu_kv_cache_gib: float = DEFAULT_CPU_KV_CACHE_GIB,
    ) -> None:
        self._model = model
        self._config = config
        self._stop_token_ids = list(stop_token_ids)
        self._cpu_kv_cache_gib = cpu_kv_cache_gib
        self._engine_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm")
        self._request_ids = itertools.count()
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self._stepping: asyncio.Task[None] | None = None
        self._weights_settled = asyncio.Event()
        self._weights_settled.set()
        self._failure: BaseException | None = None

    async def start(self) -> None:
        """Loads the model."""
        address = ray.util.get_node_ip_address()
        os.environ.setdefault("VLLM_HOST_IP", address)
        use_interface_of(address)
        self._engine: LLMEngine = await self._in_engine_thread(
            build_engine, self._model, self._config, self._cpu_kv_cache_gib
        )

    async def generate(self, prompt_token_ids: list[int], sampling: SamplingConfig, seed: int) -> list[Completion]:
        """Samples `sampling.n` completions of one prompt; the same prompt, seed and weights give the same tokens.

        (Up to rounding: in bf16 the batch that a request happens to share may turn a near tie.)

        Raises:
            ValueError: the prompt leaves no room for a response.
            RuntimeError: the engine failed, now or earlier; the message holds the cause.
        """
        if len(prompt_token_ids) >= self._config.max_model_len:
            raise ValueError(
                f"a prompt of {len(prompt_token_ids)} tokens leaves no room for a response within the engine's "
                f"max_model_len of {self._config.max_model_len}; drop or shorten it (--prompt_max_len)"
            )
        await self._weights_settled.wait()
        self._raise_if_failed()
        request_id = str(next(self._request_ids))
        finished: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = finished
        try:
            params = sampling_params(sampling, seed, self._stop_token_ids)
            prompt = {"prompt_token_ids": prompt_token_ids}
            await self._in_engine_thread(self._engine.add_request, request_id, prompt, params)
            self._ensure_stepping()
            return [read_completion(output) for output in (await finished).outputs]
        finally:
            self._waiting.pop(request_id, None)

    async def init_weight_transfer(self, init_info: dict[str, Any]) -> None:
        """Joins the sender's group (blocks until all members are there); `init_info` as the backend defines it."""
        await self._on_workers("init_weight_transfer_engine", init_info)

    async def start_weight_update(self) -> None:
        """Opens an update. Raises RuntimeError while requests are in flight: a group has one set of weights."""
        self._raise_if_failed()
        if self._waiting:
            raise RuntimeError(f"the weights cannot change while {len(self._waiting)} requests are in flight")
        self._weights_settled.clear()
        with self._fatal():
            await self._on_workers("start_weight_update")

    async def update_weights(self, update_info: dict[str, Any]) -> None:
        """Receives one bucket from the sender; `update_info` names its tensors."""
        with self._fatal():
            await self._on_workers("update_weights", update_info)

    async def finish_weight_update(self) -> None:
        """Closes the update and forgets the keys and values of the old weights."""
        with self._fatal():
            await self._on_workers("finish_weight_update")
            await self.reset_prefix_cache()
        self._weights_settled.set()

    async def abort_weight_update(self, reason: str) -> None:
        """Tells that no more buckets will come: with an update open, the weights are undefined and the engine fails."""
        if not self._weights_settled.is_set():
            self._fail(RuntimeError(reason))

    async def reset_prefix_cache(self) -> None:
        """Raises RuntimeError where blocks are still in use, which would keep stale keys and values."""
        if not await self._in_engine_thread(self._engine.reset_prefix_cache):
            raise RuntimeError("vLLM did not reset its prefix cache: blocks are still in use")

    def _ensure_stepping(self) -> None:
        if self._stepping is None or self._stepping.done():
            self._stepping = asyncio.create_task(self._step_while_waiting())
            self._stepping.add_done_callback(self._on_stepping_done)

    async def _step_while_waiting(self) -> None:
        while self._waiting:
            for output in await self._in_engine_thread(self._engine.step):
                finished = self._waiting.get(output.request_id)
                if finished is not None and not finished.done():
                    finished.set_result(output)
                    del self._waiting[output.request_id]

    def _on_stepping_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Every call that waits, and every later one, raises with this cause: a broken engine is never used again."""
        self._failure = error
        self._weights_settled.set()
        for finished in self._waiting.values():
            if not finished.done():
                finished.set_exception(_engine_failed(error))

    def _raise_if_failed(self) -> None:
        if self._failure is not None:
            raise _engine_failed(self._failure)

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """An exception inside leaves half-updated weights behind: the engine counts as failed."""
        try:
            yield
        except Exception as error:
            self._fail(error)
            raise

    async def _on_workers(self, method: str, *args: Any) -> None:
        await self._in_engine_thread(self._engine.collective_rpc, method, None, args)

    async def _in_engine_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._engine_thread, function, *args)


def create_vllm_engines(
    model: str,
    config: EngineConfig,
    *,
    stop_token_ids: Sequence[int] = (),
    num_cpu_threads: int | None = None,
    cpu_kv_cache_gib: float = DEFAULT_CPU_KV_CACHE_GIB,
) -> list[EngineHandle]:
    """Creates `config.num_engines` actors on `config.device`.

    They load their model in `start`, which the caller awaits, so that trainers can load at the same time.

    Args:
        model: Hugging Face folder or hub id.
        stop_token_ids: end a response, besides the end-of-sequence tokens of the model's generation config.
        num_cpu_threads: threads of each CPU engine; all cores by default.
        cpu_kv_cache_gib: size of each CPU engine's key-value cache; the variable VLLM_CPU_KVCACHE_SPACE overrides it.

    Raises:
        UserError: the Ray cluster has not got the GPUs.
    """
    on_gpu = config.device == "cuda"
    options = _gpu_actor_options(config) if on_gpu else _cpu_actor_options(config, num_cpu_threads)
    actor: Any = ray.remote(LLMRayActor)
    return [
        actor.options(**engine_options).remote(
            model=model, config=config, stop_token_ids=stop_token_ids, cpu_kv_cache_gib=cpu_kv_cache_gib
        )
        for engine_options in options
    ]


def _gpu_actor_options(config: EngineConfig) -> list[dict[str, Any]]:
    group = reserve_engine_gpus(config.num_engines, config.tensor_parallel_size)
    return [
        _actor_options(
            {}, num_gpus=config.tensor_parallel_size, num_cpus=1, scheduling_strategy=in_bundle(group, index)
        )
        for index in range(config.num_engines)
    ]


def _cpu_actor_options(config: EngineConfig, num_threads: int | None) -> list[dict[str, Any]]:
    if config.tensor_parallel_size != 1:
        raise ValueError("--vllm_tensor_parallel_size must be 1 on the CPU; raise --vllm_num_engines instead")
    threads = num_threads or len(os.sched_getaffinity(0))
    # Engines and trainers take turns on the same cores, so an engine reserves none of Ray's.
    # Threads that wait must sleep: spinning ones take the cores from scoring workers (117 instead of 21 to 36 tokens/s
    # with two threads on two busy cores).
    openmp = {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}
    return [_actor_options(openmp, num_cpus=0)] * config.num_engines


def _actor_options(env_vars: dict[str, str], **resources: Any) -> dict[str, Any]:
    # vLLM's warnings at start (eager mode, missing optional libraries, seeds) would fill a screen per engine.
    quiet = {name: os.environ.get(name, value) for name, value in QUIET_ENV_VARS.items()}
    one_process = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
    return {
        "runtime_env": {"env_vars": quiet | one_process | env_vars},
        # Calls that wait must never keep a weight update from getting in.
        "max_concurrency": 1_000_000,
        **resources,
    }


def _engine_failed(error: BaseException) -> RuntimeError:
    failure = RuntimeError(f"the vLLM engine failed: {type(error).__name__}: {error}")
    failure.__cause__ = error
    return failure
