"""From prompts to experiences: sample responses, score them, compare them within their group.

Another task is one subclass of `RemoteExperienceMaker`: its reward, and where it needs them the datapoints of its
prompts and checks of its own before any model loads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import ray
import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from openrlhf.config import SamplingConfig, TrainConfig
from openrlhf.datasets.prompts_dataset import ResolveDatapoint
from openrlhf.errors import UserError
from openrlhf.models.actor import Actor
from openrlhf.models.shared_prefix import SharedPrefixBatch, pack_shared_prefix
from openrlhf.trainer.ppo_utils.advantages import (
    NORMALISED_OVER_ROLLOUT,
    group_advantages,
    whiten,
    whitening_sums,
)
from openrlhf.trainer.ppo_utils.finite import describe_prompt, non_finite_samples, refuse_non_finite
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics, PhaseTimer
from openrlhf.trainer.ppo_utils.pack_budget import TRAINING_REMEDY, PackBudget
from openrlhf.trainer.ppo_utils.pack_forwards import PackForwards
from openrlhf.trainer.ppo_utils.rollout import (
    PendingGroup,
    ScoredSamples,
    sample_groups,
    start_groups,
)
from openrlhf.trainer.ppo_utils.rollout_metrics import add_logprob_metrics, add_reward_metrics
from openrlhf.trainer.ppo_utils.samples import ControlScore, Experience, Prompt, Rewards, Samples
from openrlhf.trainer.ray.handles import EngineHandle
from openrlhf.trainer.ray.reference import ReferenceClient
from openrlhf.utils.deepspeed.collectives import all_reduce
from openrlhf.utils.devices import device_type
from openrlhf.utils.seeds import Stream, derive_seed

__all__ = ["Experience", "RemoteExperienceMaker", "Samples"]


class RemoteExperienceMaker:
    """Makes one rank's experiences of a rollout, with vLLM engines and reference workers that run elsewhere.

    A task's subclass overrides `compute_rewards`; the driver asks it, as a class, about the task's flags and data.
    """

    reward_flags: ClassVar[frozenset[str]] = frozenset({"label_key"})
    """Of the flags that make a reward those that this one reads; a run that gives another is refused."""
    summarised: ClassVar[tuple[str, ...]] = ()
    """Metrics of which evaluations give, as of the reward, median and interval; the first is compared with controls."""

    def __init__(
        self,
        *,
        config: TrainConfig,
        actor: Actor,
        tokenizer: PreTrainedTokenizerBase,
        engines: Sequence[EngineHandle],
        reference: ReferenceClient,
    ) -> None:
        """`engines`: handles of `LLMRayActor`."""
        self.config = config
        self.actor = actor
        self.tokenizer = tokenizer
        self.engines = list(engines)
        self.reference = reference
        self.forwards = PackForwards(
            self._logprobs_and_entropy,
            engine=actor.model,
            budget=PackBudget(config.batch.rollout_pack_tokens, kind="log-prob", remedy=TRAINING_REMEDY),
            in_step_with_others=True,
        )
        # Where everything shares one CPU, phases that overlap only slow each other down.
        self.overlap_generation = device_type() == "cuda"
        self.overlap_reference = device_type() == "cuda" and not config.placement.colocate_actor_ref

    # ---- what a task overrides ---------------------------------------------------------------------------------

    @classmethod
    def datapoint_resolver(cls, config: TrainConfig) -> ResolveDatapoint | None:
        """What finds a prompt row's datapoint, which arrives as `samples.prompt.datapoint`.

        None: the row's `--label_key` value is all there is, as `label`.
        """
        return None

    @classmethod
    def check_data(cls, config: TrainConfig, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> None:
        """Runs once, in the driver, before any model loads, with every prompt of the run.

        Raises:
            UserError: these flags and prompts cannot work; nothing is started.
        """

    def compute_rewards(self, samples: Samples) -> Rewards:
        """The rewards of one group. Called as soon as the group is sampled, on the rank that owns its prompt."""
        raise NotImplementedError(f"{type(self).__name__} has no reward: override compute_rewards")

    def start_rewards(self, samples: Samples) -> Callable[[], Rewards]:
        """Starts scoring a group and returns what waits for the result.

        Only a reward that itself runs on the reference workers overrides this: it submits its forwards here and reads
        them in what it returns, so that scoring goes on while later prompts are still being sampled.
        """
        return partial(self.compute_rewards, samples)

    def measure(self, prompts: Sequence[Prompt]) -> dict[str, list[float]]:
        """What is worth knowing of the reward before anything is trained on it; the means are logged.

        Called once, before the first step, with a few of the run's prompts. Collective over the actor ranks.
        """
        return {}

    def score_controls(self, prompts: Sequence[Prompt], split: Sequence[Prompt]) -> list[ControlScore]:
        """What plans, or answers, that nobody had to learn are worth for `prompts`, this rank's share of `split`.

        Called once a run, before the first evaluation. Collective over the actor ranks.
        """
        return []

    # ---- one rollout -------------------------------------------------------------------------------------------

    def make_experiences(
        self, prompts: Sequence[Prompt], *, step: int, kl_coef: float, timer: PhaseTimer, metrics: MeanMetrics
    ) -> list[Experience]:
        """This rank's experiences of rollout `step`, in the order of `prompts`. Collective over the actor ranks.

        Raises:
            NonFiniteError: a reward or a log-prob is NaN or infinite.
        """
        pending = self._start(
            prompts,
            self.config.rollout_sampling,
            partial(derive_seed, self.config.seed, Stream.TRAIN_ROLLOUT, step),
            timer,
            with_reference=self.config.needs_reference_logprobs,
            with_logprobs=True,
        )
        self.reference.close_phase()  # the ranks agree on the number of forwards
        groups = [group.samples for group in pending]
        old_logprobs = self._policy_logprobs(groups, timer, metrics) if self.overlap_reference else None
        with timer.phase("score"):
            scored = self._scored(pending)
            ref_logprobs = [group.wait_ref_logprobs and group.wait_ref_logprobs() for group in pending]
        if old_logprobs is None:
            old_logprobs = self._policy_logprobs(groups, timer, metrics)
        check_rollout(scored, old_logprobs, ref_logprobs, where=f"step {step + 1}")
        advantages = self._advantages(scored, old_logprobs, ref_logprobs, kl_coef)
        experiences = [
            Experience(samples=s.samples, rewards=s.rewards, old_logprobs=old, ref_logprobs=ref, advantages=advantage)
            for s, old, ref, advantage in zip(scored, old_logprobs, ref_logprobs, advantages, strict=True)
        ]
        add_reward_metrics(metrics, scored, self.config.algorithm.reward_clip_range)
        add_logprob_metrics(metrics, experiences, self.config.algorithm.kl_estimator)
        return experiences

    def evaluate(
        self, prompts: Sequence[Prompt], sampling: SamplingConfig, *, step: int, timer: PhaseTimer
    ) -> list[ScoredSamples]:
        """Samples and scores without training. Collective over the actor ranks.

        Raises:
            NonFiniteError: a reward is NaN or infinite.
        """
        seed = partial(derive_seed, self.config.seed, Stream.EVAL_ROLLOUT, step)
        pending = self._start(prompts, sampling, seed, timer, with_reference=False, with_logprobs=False)
        self.reference.close_phase()  # the ranks agree on the number of forwards
        with timer.phase("score"):
            scored = self._scored(pending)
        nothing: list[None] = [None] * len(scored)
        check_rollout(scored, nothing, nothing, where=f"evaluation after step {step}")
        return scored

    def _start(
        self,
        prompts: Sequence[Prompt],
        sampling: SamplingConfig,
        seed: Callable[[int], int],
        timer: PhaseTimer,
        *,
        with_reference: bool,
        with_logprobs: bool,
    ) -> list[PendingGroup]:
        """Samples every prompt's group and starts its scoring; in the order of `prompts`. `seed`: of a prompt index."""
        sampled = sample_groups(
            prompts,
            engines=self.engines,
            tokenizer=self.tokenizer,
            sampling=sampling,
            seed=lambda prompt: seed(prompt.index),
            with_logprobs=with_logprobs,
        )
        start = partial(self._start_group, with_reference=with_reference)
        with timer.phase("generate"):
            if self.overlap_generation:
                return start_groups(sampled, prompts, start, while_sampling=True)
            groups = list(sampled)
        return start_groups(groups, prompts, start, while_sampling=False)

    def _start_group(self, samples: Samples, *, with_reference: bool) -> PendingGroup:
        return PendingGroup(
            samples=samples,
            wait_rewards=self.start_rewards(samples),
            wait_ref_logprobs=self._start_reference_logprobs(samples) if with_reference else None,
        )

    def _scored(self, pending: Sequence[PendingGroup]) -> list[ScoredSamples]:
        """Waits for the rewards. Raises UserError where the task gives not one for each sample."""
        source = f"the reward of {type(self).__name__}"
        scored = []
        for group in pending:
            try:
                scored.append(group.scored())
            except Exception as error:  # of the task's own code
                error.add_note(f"in {source}, for {describe_prompt(group.samples.prompt)}")
                raise
            check_counts(scored[-1], source=source)
        return scored

    # ---- log-probs ---------------------------------------------------------------------------------------------

    def _start_reference_logprobs(self, samples: Samples) -> Callable[[], list[Tensor]]:
        """Submits the reference forwards of one group; the result is (G,) tensors of (R,)."""
        batches = self._pack(samples)
        pending = self.reference.submit(batches, temperature=self.config.rollout_sampling.temperature)
        return lambda: split_batches(batches, ray.get(pending))

    def _policy_logprobs(
        self, groups: Sequence[Samples], timer: PhaseTimer, metrics: MeanMetrics
    ) -> list[list[Tensor]]:
        """Log-probs of every response under the current policy: per group (G,) tensors of (R,). Adds its entropy."""
        packed = [self._pack(samples) for samples in groups]
        with timer.phase("old_logprobs"):
            results = self.forwards.run([batch for batches in packed for batch in batches])
        entropies = [both[:, 1] for both in results]
        metrics.add_sum("entropy", sum(float(entropy.sum()) for entropy in entropies), sum(map(len, entropies)))
        remaining = iter(results)
        return [split_batches(batches, [next(remaining)[:, 0] for _ in batches]) for batches in packed]

    def _logprobs_and_entropy(self, batch: SharedPrefixBatch) -> Tensor:
        """Under the current policy: (L, 2) on the CPU."""
        both = self.actor.with_entropy(batch, self.config.rollout_sampling.temperature)
        return torch.stack(both, dim=-1).cpu()

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
        """Per group (G,) tensors of (R,). Collective where the estimator whitens over the rollout."""
        algorithm = self.config.algorithm
        advantages = [
            group_advantages(group.rewards.rewards, old, ref, algorithm=algorithm, kl_coef=kl_coef)
            for group, old, ref in zip(scored, old_logprobs, ref_logprobs, strict=True)
        ]
        if algorithm.advantage_estimator not in NORMALISED_OVER_ROLLOUT:
            return advantages
        flat = [tokens for group in advantages for tokens in group]
        whitened = iter(whiten(flat, **all_reduce(whitening_sums(flat), op="sum")))
        return [[next(whitened) for _ in group] for group in advantages]


def check_counts(group: ScoredSamples, *, source: str) -> None:
    """Raises UserError, naming `source` and prompt, where a group has not a reward, or a metric, for each sample."""
    num_samples = len(group.samples.completions)
    lists = {"rewards": group.rewards.rewards, **group.rewards.metrics}
    for name, values in lists.items():
        if len(values) != num_samples:
            where = describe_prompt(group.samples.prompt)
            raise UserError(
                f"{source} gave {len(values)} {name} for the {num_samples} samples of {where}; give one each"
            )


def check_rollout(
    scored: Sequence[ScoredSamples],
    old_logprobs: Sequence[list[Tensor] | None],
    ref_logprobs: Sequence[list[Tensor] | None],
    *,
    where: str,
) -> None:
    """Raises NonFiniteError, on every rank, for any number of a rollout that is not finite. Collective."""
    problems: list[str] = []
    for group, old, ref in zip(scored, old_logprobs, ref_logprobs, strict=True):
        values: dict[str, Sequence[Tensor | Sequence[float]] | None] = {
            "log-probs of vLLM": [completion.logprobs or () for completion in group.samples.completions],
            "reward": [[reward] for reward in group.rewards.rewards],
            "log-probs of the policy": old,
            "log-probs of the reference model": ref,
        }
        given = {name: value for name, value in values.items() if value is not None}
        problems += non_finite_samples(group.samples, given)
    refuse_non_finite(problems, where=where)


def split_batches(batches: Sequence[SharedPrefixBatch], logprobs: Sequence[Tensor]) -> list[Tensor]:
    """Label log-probs of a group's batches -> one tensor a sample, in the group's order."""
    return [
        sample for batch, values in zip(batches, logprobs, strict=True) for sample in batch.split_per_sample(values)
    ]
