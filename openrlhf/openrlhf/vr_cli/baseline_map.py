"""The baseline map: from a datapoint's key (see `dataset.index_by_key`) to the datapoint with its baseline.

On disk it is a pickled plain dict, `prompt_to_datapoint_with_baseline_ppl_X.pkl`. Each value is the dataset row plus
`datapoint_id`, `baseline_ppl`, `baseline_nll_sum` (nats) and `baseline_num_tokens`. One reserved key, PROVENANCE_KEY,
holds what they were computed with. It is read by `plain_pickle`, so a file from elsewhere can neither run code nor take
more time and memory than its size, and then checked value by value: nothing in it surprises a run that has begun.
"""

from __future__ import annotations

import functools
import math
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openrlhf.errors import UserError
from openrlhf.utils.atomic_io import atomic_write
from openrlhf.vr_cli.datapoints import Datapoint, baseline_key, check_datapoint, extract_synopsis, is_messages_row
from openrlhf.vr_cli.perplexity import MAX_MEAN_NLL, Likelihood
from openrlhf.vr_cli.plain_pickle import load_plain_pickle
from openrlhf.vr_cli.provenance import Provenance

PROVENANCE_KEY = "__provenance__"
PICKLE_PROTOCOL = 4
MAX_ROUNDING_NLL = 1e-3
"""Nats per token below 0 that rounding may leave of a token that is all but certain."""
RECOMPUTE = "run compute_baseline_perplexity.py again"


class BaselineMap:
    """Datapoints with their baseline, found by id, or by the synopsis in a prompt's text."""

    def __init__(self, by_key: Mapping[str, Datapoint], provenance: Provenance, *, path: Path | None = None) -> None:
        """`path` is the file that error messages name.

        Raises:
            UserError: a value is no datapoint with id and baseline, or two have one id.
        """
        self.by_key = dict(by_key)
        self.provenance = provenance
        self.source = str(path or "the baseline map")
        self._by_id: dict[str, Datapoint] = {}
        self._shared_turns: set[str] = set()
        """Last user turns of conversations that stand under their ids, because others end in the same turn."""
        for key, datapoint in self.by_key.items():
            try:
                check_entry(datapoint)
            except UserError as error:
                raise UserError(f"the value of {key[:60]!r}: {error}") from None
            if self._by_id.setdefault(datapoint["datapoint_id"], datapoint) is not datapoint:
                raise UserError(f"two datapoints have the id {datapoint['datapoint_id']!r}, one of them under {key!r}")
            if is_messages_row(datapoint) and key == datapoint["datapoint_id"]:
                self._shared_turns.add(baseline_key(datapoint))

    def __len__(self) -> int:
        return len(self.by_key)

    @classmethod
    def load(cls, path: str | Path) -> BaselineMap:
        """Reads a map.

        Raises:
            UserError: there is no such file, it is not a baseline map, or it holds more than plain data.
        """
        path = Path(path)
        if not path.is_file():
            raise UserError(f"there is no baseline map {path}; make it with compute_baseline_perplexity.py")
        try:
            content = load_plain_pickle(path)
            if not isinstance(content, dict) or PROVENANCE_KEY not in content:
                raise UserError(f"it does not say what it was computed with (no {PROVENANCE_KEY!r})")
            provenance = Provenance.from_dict(content.pop(PROVENANCE_KEY))
            return cls(content, provenance, path=path)
        except UserError as error:
            raise UserError(f"{path} is not a usable baseline map: {error}; {RECOMPUTE}") from None

    def save(self, path: str | Path) -> None:
        """Writes the map; what was there stays until the new file is complete."""
        with atomic_write(path, "wb") as file:
            pickle.dump({PROVENANCE_KEY: self.provenance.to_dict(), **self.by_key}, file, protocol=PICKLE_PROTOCOL)

    def baseline_of(self, datapoint_id: str, datapoint: Datapoint) -> Likelihood | None:
        """Of a dataset row that stands in the map just as it is; None where none does."""
        entry = self._by_id.get(datapoint_id)
        if entry is None:
            return None
        baseline = baseline_likelihood(entry)
        return baseline if entry == with_baseline(datapoint, datapoint_id, baseline) else None

    def resolve(self, datapoint_id: str | None, prompt_text: str) -> Datapoint:
        """The datapoint of a prompt: by its id, or for prompts made elsewhere, without one, by their text.

        The text's next-chapter synopsis is its key; a text without that section (a user message) is the key itself.

        Raises:
            UserError: the map does not know it.
        """
        if datapoint_id is not None:
            if datapoint_id in self._by_id:
                return self._by_id[datapoint_id]
            raise UserError(
                f"datapoint {datapoint_id!r} is not in {self.source}; {RECOMPUTE} on the dataset that the prompts "
                "come from, or make the prompts again with setup_rl_data.py"
            )
        synopsis = extract_synopsis(prompt_text)
        key = prompt_text.strip() if synopsis is None else synopsis
        if key in self.by_key:
            return self.by_key[key]
        if key in self._shared_turns:
            raise UserError(
                f"a prompt without datapoint_id, whose text begins {key[:60]!r}, belongs to several datapoints of "
                f"{self.source}; make the prompts with setup_rl_data.py, which gives them ids"
            )
        kind = "text" if synopsis is None else "synopsis"
        raise UserError(
            f"a prompt without datapoint_id, whose {kind} begins {key[:60]!r}, is not in {self.source}; make the "
            "prompts with setup_rl_data.py, which gives them ids"
        )

    def check_provenance(self, wanted: Provenance) -> None:
        """Raises UserError, listing every difference, where this map was not computed as `wanted` says."""
        differences = self.provenance.mismatches(wanted)
        if differences:
            raise UserError(
                f"{self.source} was computed differently from this run ({'; '.join(differences)}), so its baseline "
                f"cannot be compared; {RECOMPUTE} with this run's model and settings, or change them"
            )


def load_baseline_map(path: str | None) -> BaselineMap:
    """The map that `--baseline_ppl_path` names. Raises UserError where it was not given, or is no usable map."""
    if path is None:
        raise UserError(
            "--baseline_ppl_path (not given): the reward needs a baseline map; make one with "
            "compute_baseline_perplexity.py and pass its path (or set BASELINE_PPL_PATH)"
        )
    return _read_baseline_map(path)


@functools.cache
def _read_baseline_map(path: str) -> BaselineMap:
    """Once a process: the map holds every story, and its prompts, settings and provenance are asked for separately."""
    return BaselineMap.load(path)


def check_entry(datapoint: Any) -> None:
    """Raises UserError where a value of the map is no dataset row with an id and a possible baseline."""
    check_datapoint(datapoint)
    datapoint_id = datapoint.get("datapoint_id")
    if not isinstance(datapoint_id, str) or not datapoint_id:
        raise UserError(f"its datapoint_id is {datapoint_id!r}, no string")
    perplexity = baseline_likelihood(datapoint).perplexity
    recorded = _number(datapoint, "baseline_ppl")
    if not math.isclose(recorded, perplexity, rel_tol=1e-6):
        raise UserError(f"its baseline_ppl is {recorded}, but its nll_sum and num_tokens give {perplexity}")


def baseline_likelihood(datapoint: Datapoint) -> Likelihood:
    """The baseline of one of the map's datapoints. Raises UserError where it has none, or an impossible one."""
    nll_sum, num_tokens = _number(datapoint, "baseline_nll_sum"), datapoint.get("baseline_num_tokens")
    if type(num_tokens) is not int or num_tokens < 1:
        raise UserError(f"its baseline_num_tokens is {num_tokens!r}, no number of tokens")
    if not -MAX_ROUNDING_NLL <= nll_sum / num_tokens <= MAX_MEAN_NLL:
        raise UserError(f"its baseline_nll_sum is {nll_sum} over {num_tokens} tokens, which no model gives")
    return Likelihood(nll_sum=nll_sum, num_tokens=num_tokens)


def _number(datapoint: Datapoint, field: str) -> float:
    """A finite number."""
    value = datapoint.get(field)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise UserError(f"its {field} is {value!r:.60}, no finite number; it is without a complete baseline")
    return float(value)


def with_baseline(datapoint: Datapoint, datapoint_id: str, baseline: Likelihood) -> Datapoint:
    """The map's value for a dataset row."""
    return {
        **datapoint,
        "datapoint_id": datapoint_id,
        "baseline_ppl": baseline.perplexity,
        "baseline_nll_sum": baseline.nll_sum,
        "baseline_num_tokens": baseline.num_tokens,
    }
