"""What the reward needs to know of a task's prompts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PlanPrompts:
    """How a task finds the plan in a response, and how it words the conversation that is scored with the plan."""

    extract_plan: Callable[[str], str]
    """response -> plan."""
    has_plan_marker: Callable[[str], bool]
    """Whether a response says where its plan begins; otherwise all of it counts as the plan."""
    planned_messages: Callable[[dict[str, Any], str], list[dict[str, str]]]
    """(datapoint, plan) -> the conversation whose last message is the gold text."""
