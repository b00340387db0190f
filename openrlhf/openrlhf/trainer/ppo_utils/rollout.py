"""Sampling with vLLM: prompts go out, groups of responses come back, and their scoring starts.

Nothing here is a collective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import ray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from openrlhf.config import SamplingConfig
from openrlhf.trainer.ppo_utils.samples import Prompt, Rewards, Samples
from openrlhf.utils.progress import is_rank_0, progress_bar


@dataclass(frozen=True, kw_only=True)
class ScoredSamples:
    """A group with its rewards: what an evaluation needs, and half of an experience."""

    samples: Samples
    rewards: Rewards


@dataclass(frozen=True, kw_only=True)
class PendingGroup:
    """A sampled group whose forwards on the reference workers are under way."""

    samples: Samples
    wait_rewards: Callable[[], Rewards]
    wait_ref_logprobs: Callable[[], list[Tensor]] | None
    """To (G,) tensors of (R,); None where no KL term needs them."""

    def scored(self) -> ScoredSamples:
        """Waits for the rewards."""
        return ScoredSamples(samples=self.samples, rewards=self.wait_rewards())


def sample_groups(
    prompts: Sequence[Prompt],
    *,
    engines: Sequence[Any],
    tokenizer: PreTrainedTokenizerBase,
    sampling: SamplingConfig,
    seed: Callable[[Prompt], int],
    with_logprobs: bool,
) -> Iterator[Samples]:
    """Yields each prompt's group as soon as it is sampled. `engines`: handles of `LLMRayActor`.

    Log-probs of the sampled tokens cost the engines time: ask for them where they are used.
    """

    def request(prompt: Prompt) -> Any:
        engine = engines[prompt.index % len(engines)]
        return engine.generate.remote(prompt.token_ids, sampling, seed(prompt), with_logprobs=with_logprobs)

    requests = {request(prompt): prompt for prompt in prompts}
    with progress_bar("sampling", total=len(requests), enabled=is_rank_0()) as bar:
        while requests:
            done, _ = ray.wait(list(requests), num_returns=1)
            prompt, completions = requests.pop(done[0]), ray.get(done[0])
            responses = tokenizer.batch_decode([c.token_ids for c in completions], skip_special_tokens=True)
            bar.update(1)
            yield Samples(prompt=prompt, completions=completions, responses=responses)


def start_groups(
    groups: Iterable[Samples],
    prompts: Sequence[Prompt],
    start: Callable[[Samples], PendingGroup],
    *,
    while_sampling: bool,
) -> list[PendingGroup]:
    """Starts every group's scoring, in the order of `prompts`, or of their arrival `while_sampling` goes on.

    Returns them in the order of `prompts` in any case.
    """
    position = {prompt.index: i for i, prompt in enumerate(prompts)}

    def place(group: Samples | PendingGroup) -> int:
        samples = group.samples if isinstance(group, PendingGroup) else group
        return position[samples.prompt.index]

    if while_sampling:
        return sorted((start(samples) for samples in groups), key=place)
    return [start(samples) for samples in sorted(groups, key=place)]
