"""What a response is worth: response -> plan -> planned conversation -> likelihood of the gold text -> reward.

A `PlanScorer` needs a task's prompts, a tokenizer and anything that scores packs: reference workers elsewhere, or a
model in this process (`score_locally`). Training, evaluation and adapters for other libraries all use this one object;
it knows neither Ray nor DeepSpeed nor vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from openrlhf.datasets.chat import encode_marked, mark_special_strings
from openrlhf.errors import UserError
from openrlhf.models.shared_prefix import LabeledSequence, SharedPrefixBatch, pack_shared_prefix
from openrlhf.vr_cli.baseline_map import baseline_likelihood
from openrlhf.vr_cli.datapoints import Datapoint
from openrlhf.vr_cli.gold_span import tokenize_with_gold
from openrlhf.vr_cli.novelty import prompt_overlap, unseen_trigram_share
from openrlhf.vr_cli.perplexity import Likelihood, gold_likelihood
from openrlhf.vr_cli.plan_prompts import PlanPrompts
from openrlhf.vr_cli.rewards import RewardFunction, RewardInputs, Rewards
from openrlhf.vr_cli.scoring_noise import spread_pct, start_repeated_scoring

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

ScorePacks = Callable[[Sequence[SharedPrefixBatch]], Callable[[], Sequence["Tensor"]]]
"""Starts the forwards of packs; what it returns waits for their label log-probs, one fp32 (L,) a pack."""


NOISE_FILLER_WORDS = (5, 20)
"""Where the noise is measured, plans of so many words of the gold text share packs with the empty one."""


METRICS = (
    "improvement_pct",
    "raw_reward",
    "nll_delta",
    "planned_ppl",
    "baseline_ppl",
    "plan_length",
    "no_plan_marker_frac",
    "unseen_trigram_share",
    "prompt_coverage",
    "prompt_density",
)
"""What is measured of each sample beside its reward; docs/metrics.md says what they mean."""


@dataclass(frozen=True, kw_only=True)
class PlanSample:
    """One response to score."""

    datapoint: Datapoint
    """With its baseline: a value of the baseline map."""
    response: str
    """The policy's whole response, reasoning included."""
    prompt_text: str
    """What the policy was asked; copying from it is measured."""


class PlanScorer:
    """Turns responses into rewards by the likelihood that the gold text has after their plans."""

    def __init__(
        self,
        *,
        prompts: PlanPrompts,
        tokenizer: PreTrainedTokenizerBase,
        score_packs: ScorePacks,
        reward_function: RewardFunction,
        max_pack_tokens: int,
    ) -> None:
        """`tokenizer` belongs to the model behind `score_packs`; `max_pack_tokens` bounds a pack of several samples."""
        self.prompts = prompts
        self.tokenizer = tokenizer
        self.score_packs = score_packs
        self.reward_function = reward_function
        self.max_pack_tokens = max_pack_tokens

    def score(self, samples: Sequence[PlanSample]) -> Rewards:
        """The rewards of samples of one or of several groups, in their order."""
        return self.start(samples)()

    def start(self, samples: Sequence[PlanSample]) -> Callable[[], Rewards]:
        """Submits the forwards of samples of one or of several groups; what it returns waits for their rewards.

        Samples of one datapoint share packs, and equal plans of a datapoint one forward: the same plan must not be
        worth more or less for its place in a pack.

        Raises:
            ValueError: a conversation has no gold span.
            FloatingPointError: (when waiting) log-probs or an improvement that are not finite; it names the sample.
        """
        plans = [self.prompts.extract_plan(sample.response) for sample in samples]
        sequences = [self.planned_sequence(sample.datapoint, plan) for sample, plan in zip(samples, plans, strict=True)]
        groups = _unique_by_datapoint(samples, sequences)
        batches = [batch for group in groups for batch in pack_shared_prefix(group, max_tokens=self.max_pack_tokens)]
        wait = self.score_packs(batches)

        def rewards() -> Rewards:
            scored = [_tokens(sequence) for group in groups for sequence in group]
            logprobs = dict(zip(scored, _split(batches, wait()), strict=True))
            planned = [
                _likelihood(logprobs[_tokens(sequence)], samples[index], index)
                for index, sequence in enumerate(sequences)
            ]
            return self._rewards(samples, plans, planned)

        return rewards

    def without_plan(self, samples: Sequence[PlanSample]) -> Rewards:
        """The rewards of samples whose response is empty, where the baseline is the conversation with an empty plan."""
        baselines = [baseline_likelihood(sample.datapoint) for sample in samples]
        return self._rewards(samples, [""] * len(samples), baselines)

    def start_noise(self, datapoint: Datapoint) -> Callable[[], float]:
        """Submits a baseline conversation in packs of different shapes; what it returns waits for its noise.

        That is the spread of its perplexity in percent, the baseline map's own value among them: improvements that
        differ by less differ by chance.
        """
        words = self.prompts.planned_messages(datapoint, "")[-1]["content"].split()
        plans = ["", *(" ".join(words[:count]) for count in NOISE_FILLER_WORDS)]
        measured, *fillers = [self.planned_sequence(datapoint, plan) for plan in plans]
        wait = start_repeated_scoring(self.score_packs, measured, fillers, max_pack_tokens=self.max_pack_tokens)
        return lambda: spread_pct([*wait(), baseline_likelihood(datapoint)])

    def planned_sequence(self, datapoint: Datapoint, plan: str) -> LabeledSequence:
        """The planned conversation, labels on its gold span."""
        return planned_sequence(self.tokenizer, self.prompts, datapoint, plan)

    def _rewards(self, samples: Sequence[PlanSample], plans: Sequence[str], planned: Sequence[Likelihood]) -> Rewards:
        """From each plan's likelihood of the gold text to its reward."""
        inputs = [
            RewardInputs(
                datapoint=sample.datapoint,
                sample_index=index,
                response=sample.response,
                plan=plan,
                num_plan_tokens=self._num_tokens(plan),
                baseline=baseline_likelihood(sample.datapoint),
                planned=likelihood,
            )
            for index, (sample, plan, likelihood) in enumerate(zip(samples, plans, planned, strict=True))
        ]
        return Rewards(
            rewards=[self.reward_function(i) for i in inputs],
            metrics={
                "improvement_pct": [i.improvement_pct for i in inputs],
                "raw_reward": [i.baseline.perplexity - i.planned.perplexity for i in inputs],
                "nll_delta": [i.baseline.mean_nll - i.planned.mean_nll for i in inputs],
                "planned_ppl": [i.planned.perplexity for i in inputs],
                "baseline_ppl": [i.baseline.perplexity for i in inputs],
                "plan_length": [float(i.num_plan_tokens) for i in inputs],
                "no_plan_marker_frac": [float(not self.prompts.has_plan_marker(i.response)) for i in inputs],
                **_copying(plans, samples),
            },
        )

    def _num_tokens(self, text: str) -> int:
        return len(tokenize_text(self.tokenizer, text))


def planned_sequence(
    tokenizer: PreTrainedTokenizerBase, prompts: PlanPrompts, datapoint: Datapoint, plan: str
) -> LabeledSequence:
    """The planned conversation of a datapoint, labels on its gold span. Raises ValueError where it has none."""
    gold = tokenize_with_gold(tokenizer, prompts.planned_messages(datapoint, plan))
    return LabeledSequence(token_ids=gold.token_ids, label_start=gold.gold_start)


def tokenize_text(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Token ids of a text in which special strings are text."""
    return encode_marked(tokenizer, mark_special_strings(tokenizer, text))


def first_tokens(tokenizer: PreTrainedTokenizerBase, text: str, most: int) -> str:
    """The beginning of a text, as far as `most` tokens go; a character that is cut in two is left out."""
    token_ids = tokenize_text(tokenizer, text)
    return text if len(token_ids) <= most else str(tokenizer.decode(token_ids[:most])).rstrip("\ufffd")


def _copying(plans: Sequence[str], samples: Sequence[PlanSample]) -> dict[str, list[float]]:
    """How much of each plan is its prompt's: name -> a value a sample."""
    overlaps = [prompt_overlap(plan, sample.prompt_text) for plan, sample in zip(plans, samples, strict=True)]
    return {
        "unseen_trigram_share": [
            unseen_trigram_share(plan, sample.prompt_text) for plan, sample in zip(plans, samples, strict=True)
        ],
        "prompt_coverage": [coverage for coverage, _ in overlaps],
        "prompt_density": [density for _, density in overlaps],
    }


def check_planned_lengths(
    datapoints: Iterable[Datapoint],
    tokenizer: PreTrainedTokenizerBase,
    prompts: PlanPrompts,
    *,
    max_plan_tokens: int,
    max_positions: int | None,
) -> None:
    """Raises UserError where material, plan and gold text would be longer than a sequence of the scoring model may be.

    `max_positions`: see `max_sequence_tokens`; None sets no limit.
    """
    if max_positions is None:
        return
    for datapoint in datapoints:
        without_plan = len(planned_sequence(tokenizer, prompts, datapoint, "").token_ids)
        longest = without_plan + max_plan_tokens
        if longest > max_positions:
            raise UserError(
                f"datapoint {datapoint.get('datapoint_id')!r}: story, chapter and a plan of --generate_max_len "
                f"{max_plan_tokens} tokens take up to {longest} tokens, the reference model has {max_positions} "
                "positions; filter such rows with setup_rl_data.py, or lower --generate_max_len"
            )


def score_locally(forward: Callable[[SharedPrefixBatch], Tensor]) -> ScorePacks:
    """Scores packs in this process, one after the other, when their result is asked for."""
    return lambda batches: lambda: [forward(batch) for batch in batches]


def _unique_by_datapoint(
    samples: Sequence[PlanSample], sequences: Sequence[LabeledSequence]
) -> list[list[LabeledSequence]]:
    """The different sequences of each datapoint, which share a prefix; all in order of first appearance."""
    groups: dict[str, dict[tuple[int, ...], LabeledSequence]] = {}
    for sample, sequence in zip(samples, sequences, strict=True):
        groups.setdefault(sample.datapoint["datapoint_id"], {}).setdefault(_tokens(sequence), sequence)
    return [list(group.values()) for group in groups.values()]


def _tokens(sequence: LabeledSequence) -> tuple[int, ...]:
    """What a score depends on."""
    return (sequence.label_start, *sequence.token_ids)


def _split(batches: Sequence[SharedPrefixBatch], logprobs: Sequence[Tensor]) -> Iterator[Tensor]:
    """One tensor a packed sequence, in the order in which they were packed."""
    for batch, values in zip(batches, logprobs, strict=True):
        yield from batch.split_per_sample(values)


def _likelihood(logprobs: Tensor, sample: PlanSample, index: int) -> Likelihood:
    if not logprobs.isfinite().all():
        num_bad = int((~logprobs.isfinite()).sum())
        raise FloatingPointError(
            f"{num_bad} of the reference model's {logprobs.numel()} log-probs of the gold text are NaN or infinite for "
            f"datapoint {sample.datapoint['datapoint_id']!r}, sample {index}; check its weights, or score in float32"
        )
    return gold_likelihood(logprobs)
