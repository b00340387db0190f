"""From prompts to experiences: sample responses, score them, compare them within their group.

To train on another reward, subclass `RemoteExperienceMaker` and override `compute_rewards`; nothing else is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import ray
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from openrlhf.config import SamplingConfig, TrainConfig
from openrlhf.models.actor import Actor
from openrlhf.models.loss import estimate_kl
from openrlhf.models.shared_prefix import SharedPrefixBatch, pack_shared_prefix
from openrlhf.trainer.ppo_utils.advantages import NORMALISED_OVER_ROLLOUT, shape_rewards, token_returns, whiten
from openrlhf.trainer.ppo_utils.finite import non_finite_samples, refuse_non_finite
from openrlhf.trainer.ppo_utils.lockstep import ReferenceClient, in_lockstep
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics, PhaseTimer
from openrlhf.trainer.ppo_utils.reward_file import RewardFileFunction
from openrlhf.trainer.ppo_utils.samples import Experience, Prompt, Rewards, Samples
from openrlhf.utils.deepspeed.collectives import all_reduce
from openrlhf.utils.devices import device_type
from openrlhf.utils.progress import is_rank_0, progress_bar

# Distinguishes the seeds of training rollouts from those of evaluations.
TRAIN_STREAM, EVAL_STREAM = 0, 1


@dataclass(frozen=True, kw_only=True)
class ScoredSamples:
    """A group with its rewards: what an evaluation needs, and half of an experience."""

    samples: Samples
    rewards: Rewards


class RemoteExperienceMaker:
    """Makes one rank's experiences of a rollout, with vLLM engines and reference workers that run elsewhere."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        actor: Actor,
        tokenizer: PreTrainedTokenizerBase,
        engines: Sequence[Any],
        reference: ReferenceClient,
        reward_function: RewardFileFunction | None = None,
    ) -> None:
        """`engines`: handles of `LLMRayActor`; `reward_function`: what `--remote_rm_url FILE.py` names."""
        self.config = config
        self.actor = actor
        self.tokenizer = tokenizer
        self.engines = list(engines)
        self.reference = reference
        self.reward_function = reward_function
        # Where everything shares one CPU, phases that overlap only slow each other down.
        self.overlap_generation = device_type() == "cuda"
        self.overlap_reference = device_type() == "cuda" and not config.placement.colocate_actor_ref

    # ---- the reward: what a task overrides ---------------------------------------------------------------------

    def compute_rewards(self, samples: Samples) -> Rewards:
        """The rewards of one group. Called as soon as the group is sampled, on the rank that owns its prompt."""
        if self.reward_function is None:
            raise ValueError("no reward: pass --remote_rm_url FILE.py, or override compute_rewards in a subclass")
        return self.reward_function(samples)

    def start_rewards(self, samples: Samples) -> Callable[[], Rewards]:
        """Starts scoring a group and returns what waits for the result.

        Only a reward that itself runs on the reference workers overrides this: it submits its forwards here and reads
        them in what it returns, so that scoring goes on while later prompts are still being sampled.
        """
        return partial(self.compute_rewards, samples)

    # ---- one rollout -------------------------------------------------------------------------------------------

    def make_experiences(
        self, prompts: Sequence[Prompt], *, step: int, kl_coef: float, timer: PhaseTimer, metrics: MeanMetrics
    ) -> list[Experience]:
        """This rank's experiences of rollout `step`, in the order of `prompts`. Collective over the actor ranks."""
        references: dict[int, Callable[[], list[Tensor]]] = {}

        def also_start_reference(samples: Samples) -> None:
            if self.config.needs_reference_logprobs:
                references[samples.prompt.index] = self._start_reference_logprobs(samples)

        pending = self._sample_and_score(
            prompts,
            self.config.rollout_sampling,
            step=step,
            stream=TRAIN_STREAM,
            timer=timer,
            also=also_start_reference,
        )
        old_logprobs = None
        if self.overlap_reference:
            old_logprobs = self._policy_logprobs([samples for samples, _ in pending], timer)
        with timer.phase("score"):
            scored = [ScoredSamples(samples=samples, rewards=wait()) for samples, wait in pending]
            ref_logprobs = [references[s.samples.prompt.index]() if references else None for s in scored]
        if old_logprobs is None:
            old_logprobs = self._policy_logprobs([s.samples for s in scored], timer)
        refuse_non_finite(
            (
                problem
                for s, old, ref in zip(scored, old_logprobs, ref_logprobs, strict=True)
                for problem in non_finite_samples(
                    s.samples,
                    {
                        **sampled_values(s),
                        "log-probs of the policy": old,
                        **({} if ref is None else {"log-probs of the reference model": ref}),
                    },
                )
            ),
            where=f"step {step + 1}",
        )
        advantages = self._advantages(scored, old_logprobs, ref_logprobs, kl_coef)
        experiences = [
            Experience(samples=s.samples, rewards=s.rewards, old_logprobs=old, ref_logprobs=ref, advantages=advantage)
            for s, old, ref, advantage in zip(scored, old_logprobs, ref_logprobs, advantages, strict=True)
        ]
        add_reward_metrics(metrics, scored)
        self._add_logprob_metrics(metrics, experiences)
        return experiences

    def evaluate(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, *, step: int, timer: PhaseTimer
    ) -> list[ScoredSamples]:
        """Samples and scores without training. Collective over the actor ranks."""
        pending = self._sample_and_score(prompts, sampling, step=step, stream=EVAL_STREAM, timer=timer)
        with timer.phase("score"):
            scored = [ScoredSamples(samples=samples, rewards=wait()) for samples, wait in pending]
        refuse_non_finite(
            (problem for s in scored for problem in non_finite_samples(s.samples, sampled_values(s))),
            where=f"evaluation after step {step}",
        )
        return scored

    def _sample_and_score(
        self,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        *,
        step: int,
        stream: int,
        timer: PhaseTimer,
        also: Callable[[Samples], None] = lambda samples: None,
    ) -> list[tuple[Samples, Callable[[], Rewards]]]:
        """Samples every prompt's group and starts its scoring; in the order of `prompts`."""
        sampled: dict[int, Samples] = {}
        waits: dict[int, Callable[[], Rewards]] = {}

        def start(samples: Samples) -> None:
            waits[samples.prompt.index] = self.start_rewards(samples)
            also(samples)

        with timer.phase("generate"):
            for samples in self._generate(prompts, sampling, step=step, stream=stream):
                sampled[samples.prompt.index] = samples
                if self.overlap_generation:
                    start(samples)
        if not self.overlap_generation:
            for prompt in prompts:
                start(sampled[prompt.index])
        self.reference.close_phase()
        return [(sampled[prompt.index], waits[prompt.index]) for prompt in prompts]

    def _generate(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, *, step: int, stream: int
    ) -> Iterator[Samples]:
        """Yields each prompt's group as soon as it is sampled."""
        requests = {
            self.engines[prompt.index % len(self.engines)].generate.remote(
                prompt.token_ids, sampling, request_seed(self.config.seed, stream, step, prompt.index)
            ): prompt
            for prompt in prompts
        }
        with progress_bar("sampling", total=len(requests), enabled=is_rank_0()) as bar:
            while requests:
                done, _ = ray.wait(list(requests), num_returns=1)
                prompt, completions = requests.pop(done[0]), ray.get(done[0])
                responses = self.tokenizer.batch_decode([c.token_ids for c in completions], skip_special_tokens=True)
                bar.update(1)
                yield Samples(prompt=prompt, completions=completions, responses=responses)

    # ---- log-probs ---------------------------------------------------------------------------------------------

    def _start_reference_logprobs(self, samples: Samples) -> Callable[[], list[Tensor]]:
        """Submits the reference forwards of one group; the result is (G,) tensors of (R,)."""
        batches = self._pack(samples)
        pending = self.reference.submit(batches, temperature=self.config.rollout_sampling.temperature)
        return lambda: split_batches(batches, ray.get(pending))

    @torch.no_grad()
    def _policy_logprobs(self, groups: Sequence[Samples], timer: PhaseTimer) -> list[list[Tensor]]:
        """Log-probs of every response under the current policy: per group (G,) tensors of (R,)."""
        packed = [self._pack(samples) for samples in groups]
        flat = [batch for batches in packed for batch in batches]
        temperature = self.config.rollout_sampling.temperature
        with timer.phase("old_logprobs"):
            results = [
                self.actor(batch, temperature).cpu() for batch, _ in in_lockstep(flat, SharedPrefixBatch.empty())
            ]
        remaining = iter(results)
        return [split_batches(batches, [next(remaining) for _ in batches]) for batches in packed]

    def _pack(self, samples: Samples) -> list[SharedPrefixBatch]:
        return pack_shared_prefix(samples.labeled_sequences(), max_tokens=self.config.batch.rollout_pack_tokens)

    # ---- advantages --------------------------------------------------------------------------------------------

    def _advantages(
        self,
        scored: Sequence[ScoredSamples],
        old_logprobs: Sequence[list[Tensor]],
        ref_logprobs: Sequence[list[Tensor] | None],
        kl_coef: float,
    ) -> list[list[Tensor]]:
        """Per group (G,) tensors of (R,)."""
        algorithm = self.config.algorithm
        low, high = algorithm.reward_clip_range
        advantages = []
        for group, old, ref in zip(scored, old_logprobs, ref_logprobs, strict=True):
            rewards = torch.tensor(group.rewards.rewards, dtype=torch.float64).clamp(low, high)
            shaped = shape_rewards(rewards, algorithm.advantage_estimator).tolist()
            in_reward = ref is not None and not algorithm.use_kl_loss
            kls = [
                estimate_kl(o - r, algorithm.kl_estimator) if in_reward else torch.zeros_like(o)
                for o, r in zip(old, ref if ref is not None else old, strict=True)
            ]
            advantages.append(
                [
                    token_returns(s, kl, kl_coef=kl_coef, gamma=algorithm.gamma)
                    for s, kl in zip(shaped, kls, strict=True)
                ]
            )
        if algorithm.advantage_estimator in NORMALISED_OVER_ROLLOUT:
            return self._whiten_over_ranks(advantages)
        return advantages

    def _whiten_over_ranks(self, advantages: list[list[Tensor]]) -> list[list[Tensor]]:
        flat = [tokens.double() for group in advantages for tokens in group]
        sums = {
            "count": float(sum(tokens.numel() for tokens in flat)),
            "total": float(sum(tokens.sum().item() for tokens in flat)),
            "square_total": float(sum(tokens.square().sum().item() for tokens in flat)),
        }
        whitened = iter(whiten(flat, **all_reduce(sums, op="sum")))
        return [[next(whitened).float() for _ in group] for group in advantages]

    # ---- metrics -----------------------------------------------------------------------------------------------

    def _add_logprob_metrics(self, metrics: MeanMetrics, experiences: Sequence[Experience]) -> None:
        for experience in experiences:
            for i, completion in enumerate(experience.samples.completions):
                old = experience.old_logprobs[i]
                difference = (old - torch.tensor(completion.logprobs)).abs()
                metrics.add_sum("rollout_logprob_diff", difference.sum().item(), difference.numel())
                if experience.ref_logprobs is not None:
                    kl = estimate_kl(old - experience.ref_logprobs[i], self.config.algorithm.kl_estimator)
                    metrics.add_sum("kl", kl.mean().item(), 1)


def add_reward_metrics(metrics: MeanMetrics, scored: Sequence[ScoredSamples]) -> None:
    """Reward, response length and the task's own metrics, as means over samples."""
    for group in scored:
        completions = group.samples.completions
        metrics.add("reward", group.rewards.rewards)
        metrics.add("response_length", [len(c.token_ids) for c in completions])
        metrics.add("truncated_frac", [c.finish_reason == "length" for c in completions])
        for name, values in group.rewards.metrics.items():
            metrics.add(name, values)
        if len(completions) > 1:
            metrics.add("group_reward_std", [float(np.std(group.rewards.rewards, ddof=1))])


def sampled_values(scored: ScoredSamples) -> dict[str, list[list[float]]]:
    """What comes from vLLM and from the task, by name: one list of numbers a sample."""
    return {
        "log-probs of vLLM": [completion.logprobs for completion in scored.samples.completions],
        "reward": [[reward] for reward in scored.rewards.rewards],
    }


def split_batches(batches: Sequence[SharedPrefixBatch], logprobs: Sequence[Tensor]) -> list[Tensor]:
    """Label log-probs of a group's batches -> one tensor a sample, in the group's order."""
    return [
        sample for batch, values in zip(batches, logprobs, strict=True) for sample in batch.split_per_sample(values)
    ]


def request_seed(seed: int, stream: int, step: int, prompt_index: int) -> int:
    """A sampling seed that depends only on the run's seed and on what is sampled, so that a resumed run repeats it."""
    return int(np.random.SeedSequence([seed, stream, step, prompt_index]).generate_state(1)[0])
