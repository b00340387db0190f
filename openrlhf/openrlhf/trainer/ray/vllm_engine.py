"""vLLM engines as Ray actors: many `generate` calls at once, one continuous batch.

Every trainer rank asks for its own prompts, one `generate` call per prompt. vLLM's `AsyncLLM` batches them in a process
below the actor's and answers each call as soon as its group is finished, so scoring starts while later prompts still
generate. What the actor adds: weights change between generations only, and whatever breaks the engine is told to every
caller.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import ray

from openrlhf.config import EngineConfig, SamplingConfig
from openrlhf.trainer.ray.handles import EngineHandle
from openrlhf.trainer.ray.last_words import LastWords
from openrlhf.trainer.ray.placement import in_bundle, reserve_engine_gpus
from openrlhf.trainer.ray.vllm_api import Completion, build_engine, read_completion, sampling_params
from openrlhf.utils.network import use_interface_of

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM

T = TypeVar("T")

DEFAULT_CPU_KV_CACHE_GIB = 2.0
"""91,000 tokens of a 135M model (30 layers, 3 KV heads of 64) in bf16, half as many in fp32."""

QUIET_ENV_VARS = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TORCH_CPP_LOG_LEVEL": "ERROR",
    "PYTHONWARNINGS": "ignore::FutureWarning",
}

LIVENESS_SECONDS = 0.2
"""How often a call that waits for the engine's process looks whether it lives: vLLM leaves such calls unanswered."""


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
        # Its thread lives as long as the actor: the engine's process dies with the thread that started it.
        self._starter = ThreadPoolExecutor(max_workers=1, thread_name_prefix="vllm")
        self._last_words = LastWords()
        self._request_ids = itertools.count()
        self._in_flight = 0
        self._weights_settled = asyncio.Event()
        self._weights_settled.set()
        self._failure: str | None = None

    async def start(self) -> None:
        """Loads the model.

        Raises:
            RuntimeError: the engine's process did not start; the message holds the cause.
        """
        address = ray.util.get_node_ip_address()
        os.environ.setdefault("VLLM_HOST_IP", address)
        # vLLM's sockets in the file system outlive a killed engine; Ray's folder is removed with the cluster.
        os.environ["VLLM_RPC_BASE_PATH"] = ray.get_runtime_context().get_temp_dir()
        use_interface_of(address)
        build = partial(build_engine, self._model, self._config, self._cpu_kv_cache_gib)
        try:
            self._engine: AsyncLLM = await asyncio.get_running_loop().run_in_executor(self._starter, build)
        except Exception as error:
            if words := self._last_words.read():
                raise RuntimeError(f"the vLLM engine did not start: {words}") from error
            raise

    async def generate(
        self, prompt_token_ids: list[int], sampling: SamplingConfig, seed: int, *, with_logprobs: bool = True
    ) -> list[Completion]:
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
        params = sampling_params(sampling, seed, self._stop_token_ids, with_logprobs=with_logprobs)
        self._in_flight += 1
        try:
            answer = await self._answer(prompt_token_ids, params)
        finally:
            self._in_flight -= 1
        return [read_completion(output) for output in answer.outputs]

    async def _answer(self, prompt_token_ids: list[int], params: SamplingParams) -> RequestOutput:
        from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

        request = self._engine.generate({"prompt_token_ids": prompt_token_ids}, params, str(next(self._request_ids)))
        try:
            (answer,) = [output async for output in request]  # the whole group at its end (FINAL_ONLY)
        except EngineDeadError as error:
            raise self._died() from error
        except EngineGenerateError as error:  # has no text of its own
            raise RuntimeError(f"vLLM could not answer a request: {error.__cause__!r}") from error
        return answer

    async def init_weight_transfer(self, init_info: dict[str, Any]) -> None:
        """Joins the sender's group (blocks until all members are there); `init_info` as the backend defines it."""
        await self._on_workers("init_weight_transfer_engine", init_info)

    async def start_weight_update(self) -> None:
        """Opens an update. Raises RuntimeError while requests are in flight: a group has one set of weights."""
        self._raise_if_failed()
        if self._in_flight:
            raise RuntimeError(f"the weights cannot change while {self._in_flight} requests are in flight")
        self._weights_settled.clear()
        with self._fatal():
            # Idle: with scheduling ahead a last step may still run for requests that were answered.
            await self._while_it_lives(self._engine.pause_generation(mode="keep", clear_cache=False))
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
            await self._while_it_lives(self._engine.resume_generation())
        self._weights_settled.set()

    async def abort_weight_update(self, reason: str) -> None:
        """Tells that no more buckets will come: with an update open, the weights are undefined and the engine fails."""
        if not self._weights_settled.is_set():
            self._fail(reason)

    async def reset_prefix_cache(self) -> None:
        """Raises RuntimeError where blocks are still in use, which would keep stale keys and values."""
        if not await self._while_it_lives(self._engine.reset_prefix_cache()):
            raise RuntimeError("vLLM did not reset its prefix cache: blocks are still in use")

    def _fail(self, cause: str) -> RuntimeError:
        """Every later call, and every one that waits for weights, raises what this returns: it is never used again.

        The first cause counts; what follows from it does not.
        """
        if self._failure is None:
            self._failure = cause
        self._weights_settled.set()
        return RuntimeError(f"the vLLM engine failed: {self._failure}")

    def _died(self) -> RuntimeError:
        return self._fail(self._last_words.read() or "its process ended without a word (killed? out of memory?)")

    def _raise_if_failed(self) -> None:
        if self._failure is not None:
            raise self._fail(self._failure)

    @contextmanager
    def _fatal(self) -> Iterator[None]:
        """An exception inside leaves half-updated weights behind: the engine counts as failed."""
        try:
            yield
        except Exception as error:
            self._fail(f"{type(error).__name__}: {error}")
            raise

    async def _on_workers(self, method: str, *args: Any) -> None:
        await self._while_it_lives(self._engine.collective_rpc(method, args=args))

    async def _while_it_lives(self, call: Coroutine[Any, Any, T]) -> T:
        """The call's result. Raises RuntimeError, with the cause, where the engine's process ends before there is one.

        Which vLLM does for requests only: other calls would wait for ever.
        """
        task = asyncio.ensure_future(call)
        while not task.done():
            await asyncio.wait({task}, timeout=LIVENESS_SECONDS)
            if not task.done() and self._engine.errored:
                task.cancel()
                raise self._died()
        return task.result()


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
    # Engines and trainers take turns on the same cores, so an engine reserves none of Ray's.
    return [_actor_options(cpu_threads(num_threads), num_cpus=0)] * config.num_engines


def cpu_threads(num_threads: int | None) -> dict[str, str]:
    """The variables that give an engine on the CPU its threads; all cores by default.

    Threads that wait must sleep: spinning ones take the cores from scoring workers (117 instead of 21 to 36 tokens/s
    with two threads on two busy cores).
    """
    threads = num_threads or len(os.sched_getaffinity(0))
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE"}


def _actor_options(env_vars: dict[str, str], **resources: Any) -> dict[str, Any]:
    # vLLM's warnings at start (eager mode, missing optional libraries, seeds) would fill a screen per engine.
    quiet = {name: os.environ.get(name, value) for name, value in QUIET_ENV_VARS.items()}
    return {
        "runtime_env": {"env_vars": quiet | {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"} | env_vars},
        # Calls that wait must never keep a weight update from getting in.
        "max_concurrency": 1_000_000,
        **resources,
    }
