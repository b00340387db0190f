"""Plans that nobody had to learn: what a policy's plans are compared with.

* `empty`: no plan at all. Where plans hurt, it is the best that a policy finds first, and then it falls silent. Its
  conversation is the baseline's own, so it is known without a forward: an improvement of 0.
* `synopsis`: the datapoint's next-chapter synopsis, for a `messages` row its last user turn. The policy was told it, so
  this is what copying pays.
* `other`: the same of another story, so of the right kind and length, and about something else. Which one does not
  change: the next datapoint in the split's order, cyclic, that is of another story (of a `messages` split, the next).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from openrlhf.errors import UserError
from openrlhf.vr_cli.datapoints import Datapoint, brief

EMPTY, SYNOPSIS, OTHER = "empty", "synopsis", "other"
CONTROLS = (EMPTY, SYNOPSIS, OTHER)


def parse_controls(text: str) -> tuple[str, ...]:
    """Reads `empty,synopsis,other`, some of them, or `none`. Raises UserError."""
    names = () if text == "none" else tuple(text.split(","))
    if unknown := sorted(set(names) - set(CONTROLS)):
        raise UserError(f"unknown control {', '.join(map(repr, unknown))}; choose from {', '.join(CONTROLS)}, or none")
    return names


def controls_problem(text: str) -> str | None:
    """What is wrong with a text that `parse_controls` is to read; None if nothing."""
    try:
        parse_controls(text)
    except UserError as error:
        return str(error)
    return None


def control_plans(datapoints: Sequence[Datapoint], controls: Collection[str] = CONTROLS) -> list[dict[str, str]]:
    """Control -> plan for each datapoint of a split; a control that there is no text for is left out."""
    briefs = [brief(datapoint) for datapoint in datapoints]
    plans = []
    for index, own in enumerate(briefs):
        others = [*range(index + 1, len(briefs)), *range(index)]
        other = next((briefs[i] for i in others if briefs[i] and _differ(datapoints[index], datapoints[i])), None)
        texts = {EMPTY: "", SYNOPSIS: own, OTHER: other}
        plans.append({control: text for control, text in texts.items() if text is not None and control in controls})
    return plans


def _differ(one: Datapoint, other: Datapoint) -> bool:
    """Of two stories; rows without a story are each one of their own."""
    story = one.get("story_id")
    return story in (None, "") or story != other.get("story_id")
