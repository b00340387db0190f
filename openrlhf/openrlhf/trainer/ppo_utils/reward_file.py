"""Rewards from a user's Python file: `--remote_rm_url FILE.py` with a function `reward_func` in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from transformers import PreTrainedTokenizerBase

from openrlhf.config import TrainConfig
from openrlhf.datasets.prompts_dataset import Prompt
from openrlhf.errors import UserError
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.finite import describe_prompt
from openrlhf.trainer.ppo_utils.samples import Rewards, Samples
from openrlhf.utils.load_function import call_function, load_function
from openrlhf.vr_cli.rewards import finite_number


class RewardFileExperienceMaker(RemoteExperienceMaker):
    """An experience maker whose reward is a function in a file of the user's."""

    reward_flags: ClassVar[frozenset[str]] = frozenset({"remote_rm_url", "label_key"})

    def __init__(self, *, config: TrainConfig, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self._reward_function = RewardFileFunction(_reward_file(config))

    @classmethod
    def check_data(cls, config: TrainConfig, tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Prompt]) -> None:
        _reward_file(config)

    def compute_rewards(self, samples: Samples) -> Rewards:
        return self._reward_function(samples)


def _reward_file(config: TrainConfig) -> str:
    if config.reward.remote_rm_url is None:
        raise UserError("no reward: pass --remote_rm_url FILE.py; for VR-CLI run train_ncp.py instead")
    return config.reward.remote_rm_url


class RewardFileFunction:
    """Calls `reward_func(queries, prompts, labels)` once a group.

    queries: prompt text + response text, (G,); prompts: prompt text, (G,); labels: the row's `--label_key` value, (G,).
    It returns G numbers (a list, an array or a tensor).
    """

    def __init__(self, path: str) -> None:
        self._name, self._spec = f"{path}: reward_func", f"{path}:reward_func"
        self._function: Callable[..., Any] = load_function(self._spec, num_arguments=3)

    def __call__(self, samples: Samples) -> Rewards:
        """Raises UserError, naming file, prompt and sample, where it raises or returns no G finite numbers."""
        prompt, num_samples = samples.prompt, len(samples.responses)
        queries = [prompt.text + response for response in samples.responses]
        labels = [prompt.datapoint.get("label")] * num_samples
        where = describe_prompt(prompt)
        prompts = [prompt.text] * num_samples
        called = {"spec": self._spec, "source": self._name, "where": where}
        returned = call_function(self._function, queries, prompts, labels, **called)
        values = _as_list(returned)
        if values is None or len(values) != num_samples:
            shown = f"{' '.join(repr(returned).split()):.60} ({type(returned).__name__})"
            what = shown if values is None else f"{len(values)} rewards"
            raise UserError(
                f"{self._name} returned {what} for the {num_samples} queries of {where}; return a list of one finite "
                "number for each query"
            )
        return Rewards(
            rewards=[
                finite_number(value, source=self._name, where=f"{where}, sample {index}")
                for index, value in enumerate(values)
            ]
        )


def _as_list(returned: Any) -> list[Any] | None:
    """The values of a list, tuple, array or tensor; None for anything else (strings, dicts and numbers among it)."""
    if isinstance(returned, list | tuple):
        return list(returned)
    return list(returned) if getattr(returned, "ndim", 0) > 0 else None
