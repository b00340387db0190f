"""What does sampling through the engine actor cost, beside vLLM's own offline `generate`? Same requests, one run.

    python -m benchmarks.sampling --layers 4 --hidden 256 --vocab 4096 --prompt 256 --responses 32 --max_new 64   # CPU
    python -m benchmarks.sampling                                                     # one GPU, 1.5B shape, bf16

Run it at the root of the repository. A Qwen2 with random weights answers `--prompts` prompts of `--prompt` random
tokens with `--responses` responses altogether, of exactly `--max_new` tokens each; every request has its own seed. Both
sides run in a Ray actor of their own, one after the other, on the same device: first `LLMRayActor`, one call a prompt
as a trainer makes them, then vLLM's `LLM`. Printed are the best of `--repeats` after one that warms up, in seconds and
in tokens a second, with log-probs of the sampled tokens and without, and whether both sides sampled the same tokens.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray
import torch
from transformers import Qwen2ForCausalLM

from benchmarks.qwen2_shape import add_shape_arguments, qwen2_config
from openrlhf.config import EngineConfig, SamplingConfig
from openrlhf.trainer.ray.vllm_api import engine_arguments, sampling_params
from openrlhf.trainer.ray.vllm_engine import QUIET_ENV_VARS, cpu_threads, create_vllm_engines
from openrlhf.utils.devices import device_type

Request = tuple[list[int], SamplingConfig, int]
CPU_KV_CACHE_GIB = 1.0


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Sampling in the actor against vLLM's offline generate.")
    add_shape_arguments(parser)
    parser.add_argument("--prompts", type=int, default=8)
    parser.add_argument("--prompt", type=int, default=2048, help="tokens of each prompt")
    parser.add_argument("--responses", type=int, default=64, help="of all prompts together")
    parser.add_argument("--max_new", type=int, default=512, help="tokens of each response")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args(argv)


def save_model(args: argparse.Namespace, folder: Path, dtype: torch.dtype) -> None:
    """Random weights that never end a response."""
    config = qwen2_config(args, max_tokens=args.prompt + args.max_new, eos_token_id=None, bos_token_id=None)
    torch.manual_seed(0)
    model: Any = Qwen2ForCausalLM(config)
    model.to(dtype).save_pretrained(folder)


def make_requests(args: argparse.Namespace) -> list[Request]:
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(args.vocab, (args.prompts, args.prompt), generator=generator).tolist()
    sampling = SamplingConfig(n=args.responses // args.prompts, max_tokens=args.max_new)
    return [(prompt, sampling, seed) for seed, prompt in enumerate(prompts)]


class Offline:
    """vLLM's `LLM` with the arguments of our engines."""

    def __init__(self, arguments: dict[str, Any]) -> None:
        from vllm import LLM

        self._llm = LLM(**arguments)

    def generate(self, requests: list[Request], with_logprobs: bool) -> tuple[float, list[list[int]]]:
        """Seconds, and all responses' tokens in order."""
        prompts: Any = [{"prompt_token_ids": prompt} for prompt, _, _ in requests]
        params = [sampling_params(s, seed, [], with_logprobs=with_logprobs) for _, s, seed in requests]
        started = time.perf_counter()
        outputs = self._llm.generate(prompts, params, use_tqdm=False)
        seconds = time.perf_counter() - started
        return seconds, [list(response.token_ids) for output in outputs for response in output.outputs]


def through_actor(engine: Any, requests: list[Request], with_logprobs: bool) -> tuple[float, list[list[int]]]:
    """The same, from calls as a trainer makes them."""
    options = {} if with_logprobs else {"with_logprobs": False}
    started = time.perf_counter()
    groups = ray.get([engine.generate.remote(*request, **options) for request in requests])
    seconds = time.perf_counter() - started
    return seconds, [completion.token_ids for group in groups for completion in group]


def measure(
    name: str, side: Callable[[bool], tuple[float, list[list[int]]]], args: argparse.Namespace, with_logprobs: bool
) -> tuple[float, list[list[int]]]:
    """The best of the repeats. Prints it."""
    side(with_logprobs)
    runs = [side(with_logprobs) for _ in range(args.repeats)]
    seconds, tokens = min(runs, key=lambda run: run[0])
    rate = args.responses * args.max_new / seconds
    print(
        json.dumps(
            {
                "side": name,
                "logprobs": with_logprobs,
                "seconds": round(seconds, 3),
                "all_seconds": [round(run[0], 3) for run in runs],
                "tokens_per_s": round(rate),
            }
        ),
        flush=True,
    )
    return seconds, tokens


def main(argv: Sequence[str] | None = None) -> None:
    """Measures both sides and prints one line each, then the ratios."""
    args = parse_args(argv)
    on_gpu = device_type() == "cuda"
    config = EngineConfig(
        device="cuda" if on_gpu else "cpu",
        sync_backend="nccl" if on_gpu else "gloo",
        bf16=on_gpu,
        enable_prefix_caching=True,
        max_model_len=args.prompt + args.max_new,
    )
    requests = make_requests(args)
    with tempfile.TemporaryDirectory() as folder:
        save_model(args, Path(folder), torch.bfloat16 if on_gpu else torch.float32)
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
        environment = QUIET_ENV_VARS | ({} if on_gpu else cpu_threads(None))
        engines: list[Any] = create_vllm_engines(folder, config, cpu_kv_cache_gib=CPU_KV_CACHE_GIB)
        ray.get(engines[0].start.remote())
        ours = [measure("actor", lambda w: through_actor(engines[0], requests, w), args, w) for w in (True, False)]
        ray.kill(engines[0])
        remote: Any = ray.remote(num_gpus=int(on_gpu), num_cpus=1, runtime_env={"env_vars": environment})(Offline)
        offline = remote.remote(engine_arguments(folder, config, CPU_KV_CACHE_GIB))
        theirs = [
            measure("offline", lambda w: ray.get(offline.generate.remote(requests, w)), args, w) for w in (True, False)
        ]
        for with_logprobs, (seconds, tokens), (offline_seconds, offline_tokens) in zip(
            (True, False), ours, theirs, strict=True
        ):
            ratio = round(seconds / offline_seconds, 3)
            print(json.dumps({"logprobs": with_logprobs, "ratio": ratio, "same_tokens": tokens == offline_tokens}))
        ray.shutdown()


if __name__ == "__main__":
    main()
