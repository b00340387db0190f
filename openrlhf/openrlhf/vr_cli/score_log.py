"""An append-only log of likelihoods, so that long scoring survives being interrupted or killed."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from openrlhf.errors import UserError
from openrlhf.utils.jsonl import cut_torn_line, read_jsonl
from openrlhf.vr_cli.gold_span import GoldText
from openrlhf.vr_cli.perplexity import Likelihood
from openrlhf.vr_cli.provenance import Provenance


def score_key(text: GoldText, provenance: Provenance) -> str:
    """A hash of all that a score depends on: the tokens, which of them are scored, and the whole provenance.

    The whole, so that a field that is added to it is never forgotten here; at worst a text is scored again.
    """
    content = [provenance.to_dict(), text.token_ids, text.gold_start]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


class ScoreLog:
    """Scores by `score_key`, one JSON line each. What `append` has returned from is on disk."""

    def __init__(self, path: Path) -> None:
        """Reads what an earlier run left; a last line that a crash cut short is dropped."""
        self.path = path
        self.scores: dict[str, Likelihood] = {}
        if path.exists():
            self._read()

    def append(self, scores: Mapping[str, Likelihood]) -> None:
        with open(self.path, "ab") as file:
            for key, score in scores.items():
                line = {"key": key, "nll_sum": score.nll_sum, "num_tokens": score.num_tokens}
                file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        self.scores.update(scores)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _read(self) -> None:
        cut_torn_line(self.path)
        for number, entry in read_jsonl(self.path):
            try:
                score = Likelihood(nll_sum=entry["nll_sum"], num_tokens=entry["num_tokens"])
                self.scores[entry["key"]] = score
            except (ValueError, KeyError, TypeError) as error:
                raise UserError(f"{self.path}:{number}: damaged ({error}); delete the file to start afresh") from None
