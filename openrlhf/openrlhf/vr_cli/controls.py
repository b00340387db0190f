"""Plans that nobody had to learn: what a policy's plans are compared with.

* `empty`: no plan at all. Where plans hurt, it is the best that a policy finds first, and then it falls silent.
* `synopsis`: the datapoint's next-chapter synopsis, for a `messages` row its last user turn. The policy was told it, so
  this is what copying pays.
* `other`: the same of another story, so of the right kind and length, and about something else. Which one does not
  change: the next datapoint in the split's order, cyclic, that is of another story (of a `messages` split, the next).
"""

from __future__ import annotations

from collections.abc import Sequence

from openrlhf.vr_cli.datapoints import Datapoint, brief

EMPTY, SYNOPSIS, OTHER = "empty", "synopsis", "other"
CONTROLS = (EMPTY, SYNOPSIS, OTHER)


def control_plans(datapoints: Sequence[Datapoint]) -> list[dict[str, str]]:
    """Control -> plan for each datapoint of a split; a control that there is no text for is left out."""
    briefs = [brief(datapoint) for datapoint in datapoints]
    plans = []
    for index, own in enumerate(briefs):
        others = [*range(index + 1, len(briefs)), *range(index)]
        other = next((briefs[i] for i in others if briefs[i] and _differ(datapoints[index], datapoints[i])), None)
        texts = {EMPTY: "", SYNOPSIS: own, OTHER: other}
        plans.append({control: text for control, text in texts.items() if text is not None})
    return plans


def _differ(one: Datapoint, other: Datapoint) -> bool:
    """Of two stories; rows without a story are each one of their own."""
    story = one.get("story_id")
    return story in (None, "") or story != other.get("story_id")
