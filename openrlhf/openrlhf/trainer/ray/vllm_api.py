"""Everything said to vLLM's own API: how an engine is built, how a request is put and how its answer is read.

vLLM is imported inside the functions: this module also loads in processes that only hold handles of engines.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openrlhf.config import EngineConfig, SamplingConfig
from openrlhf.trainer.ppo_utils.samples import Completion

if TYPE_CHECKING:
    from vllm import CompletionOutput, SamplingParams
    from vllm.v1.engine.async_llm import AsyncLLM


def build_engine(model: str, config: EngineConfig, cpu_kv_cache_gib: float) -> AsyncLLM:
    """vLLM with its scheduler in a process of its own; with tensor parallelism one more process per GPU.

    The scheduler's process is killed when the thread that calls this ends.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.usage.usage_lib import UsageContext
    from vllm.v1.engine.async_llm import AsyncLLM

    args = AsyncEngineArgs(**engine_arguments(model, config, cpu_kv_cache_gib))
    # The batch sizes of offline generation: larger ones than a server's, which is after the first token.
    return AsyncLLM.from_engine_args(args, usage_context=UsageContext.LLM_CLASS)


def engine_arguments(model: str, config: EngineConfig, cpu_kv_cache_gib: float) -> dict[str, Any]:
    """vLLM's arguments for an engine of ours."""
    from vllm.config import WeightTransferConfig

    on_cpu = config.device == "cpu"
    executor = "OneWorker" if config.tensor_parallel_size == 1 else "WorkerPerGPU"
    return {
        "model": model,
        "skip_tokenizer_init": True,  # token ids go in and come out
        "trust_remote_code": config.trust_remote_code,
        "dtype": "bfloat16" if config.bf16 else "float32",
        "seed": config.seed,
        "max_model_len": config.max_model_len,
        "tensor_parallel_size": config.tensor_parallel_size,
        "distributed_executor_backend": f"openrlhf.trainer.ray.vllm_executor.{executor}",
        "enable_prefix_caching": config.enable_prefix_caching,
        # vLLM takes a seeded generator one draw back after a prompt's partial chunk, which CPU generators cannot.
        "enable_chunked_prefill": False if on_cpu else None,
        "enforce_eager": config.enforce_eager or on_cpu,  # compiling for the CPU takes a C++ compiler and minutes
        "gpu_memory_utilization": config.gpu_memory_utilization,
        "kv_cache_memory_bytes": int(cpu_kv_cache_gib * 2**30) if on_cpu else None,
        "logprobs_mode": "processed_logprobs",
        "worker_extension_cls": "openrlhf.trainer.ray.vllm_worker_wrap.WorkerWrap",
        "weight_transfer_config": WeightTransferConfig(backend=config.sync_backend),
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }


def sampling_params(
    sampling: SamplingConfig, seed: int, stop_token_ids: list[int], *, with_logprobs: bool = True
) -> SamplingParams:
    """vLLM's parameters of one request. The end-of-sequence tokens of the generation config always stop."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=sampling.n,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_tokens=sampling.max_tokens,
        seed=spread_seed(seed),
        stop_token_ids=stop_token_ids,
        logprobs=0 if with_logprobs else None,  # 0: of the sampled token alone
        flat_logprobs=with_logprobs,  # lists of numbers; the other form is a dictionary and an object a token
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def spread_seed(seed: int) -> int:
    """Moves neighbouring seeds far apart (Fibonacci hashing, Knuth vol. 3, 6.4), within torch's 32-bit CPU seeds.

    vLLM seeds the i-th sample of a group with seed + i, so groups of one prompt with the seeds 1 and 2 would
    otherwise share all samples but one.
    """
    return seed * 2_654_435_769 % 2**32


def read_completion(output: CompletionOutput) -> Completion:
    """One finished sample of vLLM's answer.

    Raises:
        RuntimeError: vLLM gave the request up, because its process was told to end.
    """
    from vllm.logprobs import FlatLogprobs

    if output.finish_reason not in ("stop", "length"):
        raise RuntimeError(f"vLLM ended a request early ({output.finish_reason})")
    return Completion(
        token_ids=list(output.token_ids),
        logprobs=list(output.logprobs.logprobs) if isinstance(output.logprobs, FlatLogprobs) else None,
        finish_reason=output.finish_reason,
    )
