"""VR-CLI on top of the fork: the reward, and the policy worker that uses it.

A response's reward is how much the plan in it lowers the reference model's perplexity on the gold text. The arithmetic
is `openrlhf.vr_cli.rewards`; here the planned conversations are built, scored by the reference workers in shared-prefix
batches, and turned into rewards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ray
from transformers import AutoConfig, PreTrainedTokenizerBase

from openrlhf.config import TrainConfig
from openrlhf.datasets.blending import SourcedRow
from openrlhf.datasets.prompts_dataset import ResolveDatapoint
from openrlhf.models.shared_prefix import LabeledSequence, pack_shared_prefix
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.samples import Prompt, Rewards, Samples
from openrlhf.trainer.ray.ppo_actor import ActorModelRayActor
from openrlhf.vr_cli.baseline_map import BaselineMap, baseline_likelihood
from openrlhf.vr_cli.gold_span import tokenize_with_gold
from openrlhf.vr_cli.novelty import unseen_trigram_share
from openrlhf.vr_cli.perplexity import Likelihood, gold_likelihoods
from openrlhf.vr_cli.provenance import Provenance
from openrlhf.vr_cli.rewards import RewardInputs, make_reward_function
from prompt_utils import PROMPT_TEMPLATE_VERSION, PromptSettings, build_planned_messages, extract_plan


class StoryBasedRemoteExperienceMaker(RemoteExperienceMaker):
    """An experience maker whose reward is VR-CLI, scored by the reference model."""

    def __init__(self, *, config: TrainConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        reward = config.reward
        self._vr_cli_reward = make_reward_function(reward.reward_shape, reward.reward_tiers, reward.reward_function)
        self._prompt_settings = load_prompt_settings(config)

    def start_rewards(self, samples: Samples) -> Callable[[], Rewards]:
        """Submits the planned conversations of a group to the reference workers; the result waits for them."""
        plans = [extract_plan(response) for response in samples.responses]
        sequences = [
            planned_sequence(self.tokenizer, samples.prompt.datapoint, plan, self._prompt_settings) for plan in plans
        ]
        batches = pack_shared_prefix(sequences, max_tokens=self.config.batch.rollout_pack_tokens)
        pending = self.reference.submit(batches)

        def wait() -> Rewards:
            logprobs = ray.get(pending)
            likelihoods = [
                likelihood
                for batch, values in zip(batches, logprobs, strict=True)
                for likelihood in gold_likelihoods(batch, values)
            ]
            return self._rewards(samples, plans, likelihoods)

        return wait

    def _rewards(self, samples: Samples, plans: list[str], planned: list[Likelihood]) -> Rewards:
        """From each plan's likelihood of the gold text to its reward."""
        prompt = samples.prompt
        baseline = baseline_likelihood(prompt.datapoint)
        inputs = [
            RewardInputs(datapoint=prompt.datapoint, response=response, baseline=baseline, planned=likelihood)
            for response, likelihood in zip(samples.responses, planned, strict=True)
        ]
        return Rewards(
            rewards=[self._vr_cli_reward(i) for i in inputs],
            metrics={
                "improvement_pct": [i.improvement_pct for i in inputs],
                "raw_reward": [baseline.perplexity - i.planned.perplexity for i in inputs],
                "nll_delta": [baseline.mean_nll - i.planned.mean_nll for i in inputs],
                "planned_ppl": [i.planned.perplexity for i in inputs],
                "baseline_ppl": [baseline.perplexity] * len(inputs),
                "unseen_trigram_share": [unseen_trigram_share(plan, prompt.text) for plan in plans],
            },
        )


class CustomStoryBasedActorModelRayActor(ActorModelRayActor):
    """The policy worker of VR-CLI: prompts carry their datapoint of the baseline map, rewards come from it."""

    def __init__(self, *, rank: int, world_size: int) -> None:
        super().__init__(
            rank=rank, world_size=world_size, remote_experience_maker_class=StoryBasedRemoteExperienceMaker
        )

    @classmethod
    def datapoint_resolver(cls, config: TrainConfig) -> ResolveDatapoint:
        """By `datapoint_id`, or for prompts made elsewhere by the synopsis in their text."""
        baseline_map = load_baseline_map(config)

        def resolve(row: SourcedRow, prompt_text: str) -> dict[str, Any]:
            return baseline_map.resolve(row.row.get("datapoint_id"), prompt_text)

        return resolve

    @classmethod
    def check_data(cls, config: TrainConfig, tokenizer: PreTrainedTokenizerBase) -> list[Prompt]:
        """Also checks that the baseline fits the reference model, and that every planned conversation does."""
        if config.reward.remote_rm_url is not None:
            raise ValueError("train_ncp.py's reward is VR-CLI: drop --remote_rm_url, or run openrlhf.cli.train_ppo_ray")
        baseline_map = load_baseline_map(config)
        baseline_map.check_provenance(
            Provenance.of_model(
                config.reference.pretrain,
                bf16=config.reference.bf16,
                flash_attn=config.reference.flash_attn,
                prompt_template_version=PROMPT_TEMPLATE_VERSION,
                prompt_settings=baseline_map.provenance.prompt_settings,
            )
        )
        prompts = super().check_data(config, tokenizer)
        check_lengths(config, tokenizer, prompts)
        return prompts


def load_baseline_map(config: TrainConfig) -> BaselineMap:
    if config.reward.baseline_ppl_path is None:
        raise ValueError(
            "--baseline_ppl_path (not given): the reward needs a baseline map; make one with "
            "compute_baseline_perplexity.py and pass its path (or set BASELINE_PPL_PATH)"
        )
    return _read_baseline_map(config.reward.baseline_ppl_path)


@functools.cache
def _read_baseline_map(path: str) -> BaselineMap:
    """Once a process: the map holds every story, and its prompts, settings and provenance are asked for separately."""
    return BaselineMap.load(path)


def load_prompt_settings(config: TrainConfig) -> PromptSettings:
    """The settings that the baseline was computed with: planned and baseline text must differ in the plan alone."""
    return PromptSettings(**load_baseline_map(config).provenance.prompt_settings)


def planned_sequence(
    tokenizer: PreTrainedTokenizerBase, datapoint: dict[str, Any], plan: str, settings: PromptSettings
) -> LabeledSequence:
    """The planned conversation, labels on its gold span."""
    gold = tokenize_with_gold(tokenizer, build_planned_messages(datapoint, plan, settings))
    return LabeledSequence(token_ids=gold.token_ids, label_start=gold.gold_start)


def check_lengths(config: TrainConfig, tokenizer: PreTrainedTokenizerBase, prompts: list[Prompt]) -> None:
    """Raises ValueError where story, plan and chapter together would not fit into the reference model's positions."""
    model_config = AutoConfig.from_pretrained(
        config.reference.pretrain, trust_remote_code=config.reference.trust_remote_code
    )
    limit = model_config.max_position_embeddings
    settings = load_prompt_settings(config)
    for prompt in prompts:
        without_plan = len(planned_sequence(tokenizer, prompt.datapoint, "", settings).token_ids)
        longest = without_plan + config.batch.generate_max_len
        if longest > limit:
            raise ValueError(
                f"datapoint {prompt.datapoint.get('datapoint_id')!r}: story, chapter and a plan of --generate_max_len "
                f"{config.batch.generate_max_len} tokens take up to {longest} tokens, the reference model has {limit} "
                "positions; filter such rows with setup_rl_data.py, or lower --generate_max_len"
            )
