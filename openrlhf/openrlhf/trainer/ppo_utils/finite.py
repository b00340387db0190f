"""NaN and infinity end a run before they reach the weights, on all ranks at once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from torch import Tensor

from openrlhf.trainer.ppo_utils.samples import Prompt, Samples
from openrlhf.utils.deepspeed.collectives import all_gather_object

REMEDY = (
    "nothing was trained on it; resume from the last checkpoint with --load_checkpoint, and if it comes back lower "
    "--actor_learning_rate or compute in fp32 (without --bf16)"
)


class NonFiniteError(FloatingPointError):
    """A number that training needs is NaN or infinite. The message says which, in which step and where."""


def describe_prompt(prompt: Prompt) -> str:
    """`prompt 3 (datapoint 'x')`."""
    datapoint = "" if prompt.datapoint_id is None else f" (datapoint {prompt.datapoint_id!r})"
    return f"prompt {prompt.index}{datapoint}"


def describe_samples(prompt: Prompt, indices: Sequence[int]) -> str:
    """`prompt 3 (datapoint 'x'), sample 0, 2`."""
    return f"{describe_prompt(prompt)}, sample {', '.join(map(str, indices))}"


def non_finite_samples(samples: Samples, values: Mapping[str, Sequence[Tensor | Sequence[float]]]) -> Iterator[str]:
    """What is not finite in a group. `values`: name -> one (R,) tensor or list of numbers a sample."""
    for name, per_sample in values.items():
        bad = [i for i, numbers in enumerate(per_sample) if not _all_finite(numbers)]
        if bad:
            yield f"{name} not finite for {describe_samples(samples.prompt, bad)}"


def refuse_non_finite(problems: Iterable[str], *, where: str) -> None:
    """Raises on every rank if any rank has a problem. Collective over the actor ranks.

    Args:
        where: the step or evaluation, as the metrics count it.

    Raises:
        NonFiniteError: names `where` and the first three problems of each rank.
    """
    found = [problem for of_rank in all_gather_object(list(problems)[:3]) for problem in of_rank]
    if found:
        raise NonFiniteError(f"{where}: {'; '.join(found)}; {REMEDY}")


def _all_finite(numbers: Tensor | Sequence[float]) -> bool:
    if isinstance(numbers, Tensor):
        return bool(numbers.isfinite().all())
    return all(map(math.isfinite, numbers))
