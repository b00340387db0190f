"""The baseline map: from a datapoint's key (see `datapoints.baseline_key`) to the datapoint with its baseline.

On disk it is a pickled plain dict, `prompt_to_datapoint_with_baseline_ppl_X.pkl`. Each value is the dataset row plus
`datapoint_id`, `baseline_ppl`, `baseline_nll_sum` (nats) and `baseline_num_tokens`. One reserved key, PROVENANCE_KEY,
holds what they were computed with. It is read through an unpickler that knows plain containers and scalars only, so a
file from elsewhere cannot run code.
"""

from __future__ import annotations

import functools
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from openrlhf.utils.atomic_io import atomic_write
from openrlhf.vr_cli.datapoints import Datapoint, extract_synopsis
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.provenance import Provenance

PROVENANCE_KEY = "__provenance__"
RECOMPUTE = "run compute_baseline_perplexity.py again"


class BaselineMap:
    """Datapoints with their baseline, found by id, or by the synopsis in a prompt's text."""

    def __init__(self, by_key: Mapping[str, Datapoint], provenance: Provenance, *, path: Path | None = None) -> None:
        """`path` is the file that error messages name.

        Raises:
            ValueError: a datapoint lacks its id or baseline, or two have one id.
        """
        self.by_key = dict(by_key)
        self.provenance = provenance
        self.source = str(path or "the baseline map")
        self._by_id: dict[str, Datapoint] = {}
        for key, datapoint in self.by_key.items():
            baseline_likelihood(datapoint)
            if self._by_id.setdefault(datapoint["datapoint_id"], datapoint) is not datapoint:
                raise ValueError(f"two datapoints have the id {datapoint['datapoint_id']!r}, one of them under {key!r}")

    def __len__(self) -> int:
        return len(self.by_key)

    @classmethod
    def load(cls, path: str | Path) -> BaselineMap:
        """Reads a map.

        Raises:
            ValueError: there is no such file, it is not a baseline map, or it holds more than plain data.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"there is no baseline map {path}; make it with compute_baseline_perplexity.py")
        try:
            content = load_plain_pickle(path)
            if not isinstance(content, dict) or PROVENANCE_KEY not in content:
                raise ValueError(f"it does not say what it was computed with (no {PROVENANCE_KEY!r})")
            provenance = Provenance.from_dict(content.pop(PROVENANCE_KEY))
            return cls(content, provenance, path=path)
        except ValueError as error:
            raise ValueError(f"{path} is not a usable baseline map: {error}; {RECOMPUTE}") from None

    def save(self, path: str | Path) -> None:
        """Writes the map; what was there stays until the new file is complete."""
        with atomic_write(path, "wb") as file:
            pickle.dump({PROVENANCE_KEY: self.provenance.to_dict(), **self.by_key}, file)

    def resolve(self, datapoint_id: str | None, prompt_text: str) -> Datapoint:
        """The datapoint of a prompt: by its id, or for prompts made elsewhere, without one, by their text.

        The text's next-chapter synopsis is its key; a text without that section (a user message) is the key itself.

        Raises:
            ValueError: the map does not know it.
        """
        if datapoint_id is not None:
            if datapoint_id in self._by_id:
                return self._by_id[datapoint_id]
            raise ValueError(
                f"datapoint {datapoint_id!r} is not in {self.source}; {RECOMPUTE} on the dataset that the prompts "
                "come from, or make the prompts again with setup_rl_data.py"
            )
        synopsis = extract_synopsis(prompt_text)
        key = prompt_text.strip() if synopsis is None else synopsis
        if key in self.by_key:
            return self.by_key[key]
        kind = "text" if synopsis is None else "synopsis"
        raise ValueError(
            f"a prompt without datapoint_id, whose {kind} begins {key[:60]!r}, is not in {self.source}; make the "
            "prompts with setup_rl_data.py, which gives them ids"
        )

    def check_provenance(self, wanted: Provenance) -> None:
        """Raises ValueError, listing every difference, where this map was not computed as `wanted` says."""
        differences = self.provenance.mismatches(wanted)
        if differences:
            raise ValueError(
                f"{self.source} was computed differently from this run ({'; '.join(differences)}), so its baseline "
                f"cannot be compared; {RECOMPUTE} with this run's model and settings, or change them"
            )


def load_baseline_map(path: str | None) -> BaselineMap:
    """The map that `--baseline_ppl_path` names. Raises ValueError where it was not given, or is no usable map."""
    if path is None:
        raise ValueError(
            "--baseline_ppl_path (not given): the reward needs a baseline map; make one with "
            "compute_baseline_perplexity.py and pass its path (or set BASELINE_PPL_PATH)"
        )
    return _read_baseline_map(path)


@functools.cache
def _read_baseline_map(path: str) -> BaselineMap:
    """Once a process: the map holds every story, and its prompts, settings and provenance are asked for separately."""
    return BaselineMap.load(path)


def baseline_likelihood(datapoint: Datapoint) -> Likelihood:
    """The baseline of one of the map's datapoints. Raises ValueError where it has none."""
    try:
        return Likelihood(nll_sum=datapoint["baseline_nll_sum"], num_tokens=datapoint["baseline_num_tokens"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"a datapoint without a complete baseline ({type(error).__name__}: {error})") from None


def with_baseline(datapoint: Datapoint, datapoint_id: str, baseline: Likelihood) -> Datapoint:
    """The map's value for a dataset row."""
    return {
        **datapoint,
        "datapoint_id": datapoint_id,
        "baseline_ppl": baseline.perplexity,
        "baseline_nll_sum": baseline.nll_sum,
        "baseline_num_tokens": baseline.num_tokens,
    }


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        raise ValueError(f"it refers to {module}.{name}, and only plain dicts, lists, strings and numbers are read")


def load_plain_pickle(path: Path) -> Any:
    """Unpickles plain containers and scalars.

    Raises:
        ValueError: the file refers to any class or function, or is no complete pickle.
    """
    with open(path, "rb") as file:
        try:
            return _PlainUnpickler(file).load()
        except (
            pickle.UnpicklingError,
            EOFError,
            AttributeError,
            IndexError,
            KeyError,
            TypeError,
            OverflowError,
        ) as error:
            raise ValueError(f"not a readable pickle ({type(error).__name__}: {error})") from None
