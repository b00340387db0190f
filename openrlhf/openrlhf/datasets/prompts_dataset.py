"""`PromptDataset`: rows -> prompts, checked whole before any model loads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from openrlhf.config import DataConfig, TrainConfig
from openrlhf.datasets.blending import SourcedRow, blending_datasets
from openrlhf.datasets.chat import encode_marked, mark_special_strings, tokenize_prompt
from openrlhf.datasets.prompt import Prompt
from openrlhf.errors import UserError

MAX_PROBLEMS_SHOWN = 10
DATASET_FIELDS = frozenset({"messages", "story_text", "next_chapter"})
"""Where there is one of them instead of a prompt, the row has not been through setup_rl_data.py."""

ResolveDatapoint = Callable[[SourcedRow, str], dict[str, Any]]
"""(row, prompt text) -> the datapoint that the reward is computed from; UserError where there is none."""


class PromptDataset(Sequence[Prompt]):
    """Prompts by index. A row holds messages (or a text) under `input_key` and, for VR-CLI, a `datapoint_id`."""

    def __init__(
        self,
        rows: Sequence[SourcedRow],
        tokenizer: PreTrainedTokenizerBase,
        config: DataConfig,
        *,
        prompt_max_len: int,
        resolve_datapoint: ResolveDatapoint | None = None,
    ) -> None:
        """
        Raises:
            UserError: naming every row (the first ten) that cannot become a prompt, why, and what to do.
        """
        self._tokenizer = tokenizer
        self._config = config
        self._prompt_max_len = prompt_max_len
        self._resolve_datapoint = resolve_datapoint or self._label_datapoint
        self._prompts: list[Prompt] = []
        problems: list[str] = []
        for row in rows:
            try:
                self._prompts.append(self._make_prompt(len(self._prompts), row))
            except UserError as error:
                problems.append(f"{row.where}: {error}")
        if problems:
            more = len(problems) - MAX_PROBLEMS_SHOWN
            shown = problems[:MAX_PROBLEMS_SHOWN] + ([f"... and {more} more rows"] if more > 0 else [])
            raise UserError("\n".join(shown))

    def __len__(self) -> int:
        return len(self._prompts)

    def __getitem__(self, index: int) -> Prompt:  # type: ignore[override]
        return self._prompts[index]

    def _make_prompt(self, index: int, sourced: SourcedRow) -> Prompt:
        value = sourced.row.get(self._config.input_key)
        if value is None:
            raise UserError(_no_prompt(sourced.row, self._config.input_key))
        text = _prompt_text(value, self._config.input_key)
        token_ids = self._tokenize(value, text)
        if len(token_ids) > self._prompt_max_len:
            raise UserError(
                f"the prompt has {len(token_ids)} tokens, more than --prompt_max_len {self._prompt_max_len}; raise it, "
                "or filter such rows when the prompts are made"
            )
        datapoint_id = sourced.row.get("datapoint_id")
        if datapoint_id is not None and not isinstance(datapoint_id, str):
            raise UserError(f"field 'datapoint_id' must be a string, got {type(datapoint_id).__name__}")
        datapoint = self._resolve_datapoint(sourced, text)
        return Prompt(index=index, text=text, token_ids=token_ids, datapoint=datapoint, datapoint_id=datapoint_id)

    def _tokenize(self, value: Any, text: str) -> list[int]:
        if self._config.apply_chat_template:
            messages = [{"role": "user", "content": value}] if isinstance(value, str) else value
            return tokenize_prompt(self._tokenizer, messages)
        if not isinstance(value, str):
            raise UserError(f"field {self._config.input_key!r} holds messages; pass --apply_chat_template")
        template = self._config.input_template
        if template is None:  # the row says it all, special tokens included
            return self._tokenizer(text)["input_ids"]
        marked = template.format(mark_special_strings(self._tokenizer, text))
        return encode_marked(self._tokenizer, marked, add_special_tokens=True)

    def _label_datapoint(self, sourced: SourcedRow, text: str) -> dict[str, Any]:
        """Without a resolver, a datapoint is the row's `--label_key` value."""
        key = self._config.label_key
        if key is None:
            return {}
        if key not in sourced.row:
            raise UserError(f"field {key!r} (--label_key) is missing")
        return {"label": sourced.row[key]}


def load_prompts(
    config: DataConfig,
    tokenizer: PreTrainedTokenizerBase,
    *,
    split: str,
    prompt_max_len: int,
    seed: int,
    resolve_datapoint: ResolveDatapoint | None = None,
) -> PromptDataset:
    """Reads one split of `--prompt_data`.

    Raises:
        UserError: a file that is not there or empty, or rows that cannot become prompts.
    """
    rows = blending_datasets(
        config.prompt_data, config.prompt_data_probs, split=split, seed=seed, max_rows=config.max_samples
    )
    if not rows:
        raise UserError(f"{config.prompt_data}: split {split!r} has no rows")
    return PromptDataset(rows, tokenizer, config, prompt_max_len=prompt_max_len, resolve_datapoint=resolve_datapoint)


def _no_prompt(row: Mapping[str, Any], key: str) -> str:
    """Why a row has no prompt under `key`."""
    if row.keys() & DATASET_FIELDS:
        return (
            f"field {key!r} is missing: this is a row of a dataset, from which prompts are made: run setup_rl_data.py, "
            "and pass its --data_dir (--prompt_data json@rl_data)"
        )
    return f"field {key!r} is missing (there are: {', '.join(row) or 'none'}); name the prompt's field with --input_key"


def load_run_prompts(
    config: TrainConfig, tokenizer: PreTrainedTokenizerBase, resolve_datapoint: ResolveDatapoint | None
) -> tuple[PromptDataset, PromptDataset | None]:
    """A run's training prompts and, if there are evaluations, theirs. Raises as `load_prompts` does."""

    def load(split: str) -> PromptDataset:
        return load_prompts(
            config.data,
            tokenizer,
            split=split,
            prompt_max_len=config.batch.prompt_max_len,
            seed=config.seed,
            resolve_datapoint=resolve_datapoint,
        )

    evaluates = config.evaluation.eval_steps > 0
    return load(config.data.prompt_split), load(config.data.eval_split) if evaluates else None


def _prompt_text(value: Any, key: str) -> str:
    """What the user asked: the text itself, or the messages' contents."""
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value:
        if all(
            isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
        ):
            return "\n\n".join(message["content"] for message in value)
        raise UserError(f"field {key!r} must hold messages with the strings 'role' and 'content'")
    raise UserError(f"field {key!r} must be a text or a list of messages, and not empty")
