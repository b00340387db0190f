"""VR-CLI on top of the fork: the experience maker whose reward it is, and the policy worker that uses it.

The reward itself is `openrlhf.vr_cli.plan_scoring`; here it meets this project's prompts and the reference workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import ray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from openrlhf.config import RewardConfig, TrainConfig
from openrlhf.datasets.blending import SourcedRow
from openrlhf.datasets.prompts_dataset import ResolveDatapoint
from openrlhf.models.limits import max_sequence_tokens
from openrlhf.models.shared_prefix import SharedPrefixBatch
from openrlhf.trainer.best import check_metric
from openrlhf.trainer.eval_summary import metric_names
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.samples import ControlScore, Prompt, Rewards, Samples
from openrlhf.trainer.ray.ppo_actor import ActorModelRayActor
from openrlhf.utils.logging import init_logger
from openrlhf.utils.model_config import get_model_config
from openrlhf.vr_cli.baseline_map import load_baseline_map
from openrlhf.vr_cli.controls import EMPTY, control_plans, parse_controls
from openrlhf.vr_cli.plan_scoring import METRICS, PlanSample, PlanScorer, check_planned_lengths, first_tokens
from openrlhf.vr_cli.provenance import Provenance
from openrlhf.vr_cli.rewards import (
    DEFAULT_TIERS,
    RewardFunction,
    make_reward_function,
    short_plan_penalty,
    with_min_plan_tokens,
)
from prompt_utils import PROMPT_TEMPLATE_VERSION, plan_prompts

logger = init_logger(__name__)


class StoryBasedRemoteExperienceMaker(RemoteExperienceMaker):
    """An experience maker whose reward is VR-CLI, scored by the reference model."""

    reward_flags: ClassVar[frozenset[str]] = frozenset(
        {
            "baseline_ppl_path",
            "reward_shape",
            "reward_tiers",
            "reward_function",
            "min_plan_tokens",
            "short_plan_penalty",
        }
    )

    summarised: ClassVar[tuple[str, ...]] = ("improvement_pct",)

    def __init__(self, *, config: TrainConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        reward = config.reward
        self._scorer = PlanScorer(
            prompts=plan_prompts(load_baseline_map(reward.baseline_ppl_path).provenance.prompt_settings),
            tokenizer=self.tokenizer,
            score_packs=self._submit,
            reward_function=reward_function(reward),
            max_pack_tokens=config.batch.rollout_pack_tokens,
        )

    @classmethod
    def datapoint_resolver(cls, config: TrainConfig) -> ResolveDatapoint:
        """By `datapoint_id`, or for prompts made elsewhere by the synopsis in their text."""
        baseline_map = load_baseline_map(config.reward.baseline_ppl_path)

        def resolve(row: SourcedRow, prompt_text: str) -> dict[str, Any]:
            return baseline_map.resolve(row.row.get("datapoint_id"), prompt_text)

        return resolve

    @classmethod
    def check_data(cls, config: TrainConfig, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> None:
        """Checks that the baseline is the reference model's own, and that every planned conversation fits into it.

        A `--save_best` that is no metric is refused here too: evaluations would find out when all models are loaded.
        """
        if config.checkpoint.save_best is not None:
            controls = parse_controls(config.evaluation.controls)
            names = metric_names(METRICS, summarised=cls.summarised, controls=controls, num_datapoints=len(prompts))
            check_metric(config.checkpoint.save_best, names)
        baseline_map = load_baseline_map(config.reward.baseline_ppl_path)
        prompt_settings = baseline_map.provenance.prompt_settings
        baseline_map.check_provenance(
            Provenance.of_model(
                config.reference.pretrain,
                tokenizer,
                dtype=config.reference_dtype,
                flash_attn=config.reference.flash_attn,
                prompt_template_version=PROMPT_TEMPLATE_VERSION,
                prompt_settings=prompt_settings,
            )
        )
        model_config = get_model_config(config.reference.pretrain, trust_remote_code=config.reference.trust_remote_code)
        check_planned_lengths(
            (prompt.datapoint for prompt in prompts),
            tokenizer,
            plan_prompts(prompt_settings),
            max_plan_tokens=config.batch.generate_max_len,
            max_positions=max_sequence_tokens(model_config),
        )

    def start_rewards(self, samples: Samples) -> Callable[[], Rewards]:
        """Submits the planned conversations of a group to the reference workers; the result waits for them."""
        return self._scorer.start([_plan_sample(samples.prompt, response) for response in samples.responses])

    def measure(self, prompts: Sequence[Prompt]) -> dict[str, list[float]]:
        """How far apart the same conversation is scored; see `PlanScorer.start_noise`."""
        waits = [self._scorer.start_noise(prompt.datapoint) for prompt in prompts]
        self.reference.close_phase()
        noise = [wait() for wait in waits]
        first_tier = DEFAULT_TIERS[0].threshold_pct
        if max(noise, default=0.0) > first_tier:
            logger.warning(
                "scoring has a noise of %.2g %% of perplexity, the first reward tier is at %g %%; score more exactly "
                "(--reference_dtype, here %s), and compute the baseline on this kind of machine",
                max(noise),
                first_tier,
                self.config.reference_dtype,
            )
        return {"scoring_noise_pct": noise}

    def score_controls(self, prompts: Sequence[Prompt], split: Sequence[Prompt]) -> list[ControlScore]:
        """The plans of `vr_cli/controls.py`, cut to as many tokens as a response may have."""
        names = parse_controls(self.config.evaluation.controls)
        plans = control_plans([prompt.datapoint for prompt in split], names)
        by_index = {prompt.index: of_prompt for prompt, of_prompt in zip(split, plans, strict=True)}
        most = self.config.batch.generate_max_len
        asked = [
            (prompt, control, first_tokens(self.tokenizer, text, most))
            for prompt in prompts
            for control, text in by_index[prompt.index].items()
        ]
        empty = [(prompt, control, plan) for prompt, control, plan in asked if control == EMPTY]
        written = [(prompt, control, plan) for prompt, control, plan in asked if control != EMPTY]
        wait = self._scorer.start([_plan_sample(prompt, plan) for prompt, _, plan in written])
        self.reference.close_phase()
        known = self._scorer.without_plan([_plan_sample(prompt, plan) for prompt, _, plan in empty])
        return [*_control_scores(empty, known), *_control_scores(written, wait())]

    def _submit(self, batches: Sequence[SharedPrefixBatch]) -> Callable[[], list[Tensor]]:
        return partial(ray.get, self.reference.submit(batches))


def _plan_sample(prompt: Prompt, response: str) -> PlanSample:
    return PlanSample(datapoint=prompt.datapoint, response=response, prompt_text=prompt.text)


def _control_scores(asked: Sequence[tuple[Prompt, str, str]], rewards: Rewards) -> list[ControlScore]:
    """`asked`: prompt, control and plan of each of the rewards."""
    return [
        ControlScore(
            prompt_index=prompt.index,
            datapoint_id=prompt.datapoint_id,
            control=control,
            plan=plan,
            reward=rewards.rewards[i],
            metrics={name: values[i] for name, values in rewards.metrics.items()},
        )
        for i, (prompt, control, plan) in enumerate(asked)
    ]


def reward_function(reward: RewardConfig) -> RewardFunction:
    """The reward of one plan, as the flags say."""
    function = make_reward_function(reward.reward_shape, reward.reward_tiers, reward.reward_function)
    if reward.min_plan_tokens is None:
        return function
    shape = None if reward.reward_function else reward.reward_shape
    penalty = reward.short_plan_penalty or short_plan_penalty(shape)
    return with_min_plan_tokens(function, reward.min_plan_tokens, penalty)


class CustomStoryBasedActorModelRayActor(ActorModelRayActor):
    """The policy worker of VR-CLI."""

    remote_experience_maker_class = StoryBasedRemoteExperienceMaker
