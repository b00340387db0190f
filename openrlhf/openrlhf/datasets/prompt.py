"""A prompt as training sees it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One prompt as the policy sees it, with the datapoint that its reward is computed from."""

    index: int
    """Position in its dataset: stable over epochs and ranks."""
    text: str
    """What the user asked, before the chat template."""
    token_ids: list[int]
    """With the chat template and the generation prompt."""
    datapoint: dict[str, Any] = field(default_factory=dict)
    """Plain data that the reward may need; for VR-CLI the row of the baseline map."""
    datapoint_id: str | None = None
