"""Which evaluation is the best, and that its checkpoint stays."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.errors import UserError
from openrlhf.trainer.best import BestEvaluation, better_evaluation, resumed_best
from openrlhf.trainer.ppo_trainer import PPOTrainer
from openrlhf.utils.disk import WriteError
from support.tiny_run import arguments

BEST = BestEvaluation(metric="reward", value=1.0, step=8)


def test_only_a_higher_value_is_better():
    def step_of(value: float, best: BestEvaluation | None = BEST) -> int | None:
        better = better_evaluation(best, {"reward": value}, metric="reward", step=16)
        return None if better is None else better.step

    assert [step_of(1.5), step_of(1.0), step_of(0.5), step_of(math.nan), step_of(math.inf)] == [16] + [None] * 4
    assert step_of(-3.0, best=None) == 16


def test_an_unknown_metric_is_refused_with_those_that_there_are():
    metrics = {"reward": 1.0, "improvement_pct": 2.0, "time/eval_s": 3.0}
    with pytest.raises(UserError, match=r"--save_best bleu: .*no such metric; choose from improvement_pct, reward$"):
        better_evaluation(None, metrics, metric="bleu", step=0)


def test_a_resumed_run_goes_on_with_the_best_of_its_metric():
    saved = {"metric": "reward", "value": 1.0, "step": 8}
    assert resumed_best(saved, metric="reward") == BEST
    assert resumed_best(saved, metric="improvement_pct") is None
    assert resumed_best(saved, metric=None) is None
    assert resumed_best(None, metric="reward") is None


class Strategy:
    """Records what is saved; a disk that is full saves nothing."""

    def __init__(self) -> None:
        self.saved: list[tuple[str, str, int, Any]] = []
        self.full = False

    def save_checkpoint(self, _: Any, folder: str, tag: str, state: dict[str, Any], *, max_num: int, **__: Any) -> None:
        if self.full:
            raise WriteError("not enough room")
        self.saved.append((Path(folder).name, tag, max_num, state["best"]))


def make_trainer(output: Path, **changes: Any) -> Any:
    trainer: Any = object.__new__(PPOTrainer)
    trainer.config = to_config(parse_args(arguments(output, output, save_steps=1, save_best="reward", **changes)))
    trainer.strategy = Strategy()
    trainer.actor, trainer.tokenizer = SimpleNamespace(model=None), None
    trainer.kl_controller = SimpleNamespace(value=0.1)
    trainer.lr_updates, trainer.settings = 4, {}
    trainer.tracker, trainer.best = object(), None
    return trainer


def test_the_best_is_kept_beside_the_others_and_known_to_them(tmp_path: Path):
    """Rewards 1, 0, 2, 2 and 3 after steps 0, 2, 4, 6 and 8: better after 4 and 8. The start is not saved."""
    trainer = make_trainer(tmp_path)
    for step, reward in ((0, 1.0), (2, 0.0), (4, 2.0), (6, 2.0), (8, 3.0)):
        trainer.keep_best(step, {"reward": reward})
    assert [saved[:3] for saved in trainer.strategy.saved] == [
        ("_best", "global_step4", 1),
        ("_best", "global_step8", 1),
    ]
    trainer.save_checkpoint(9)
    expected = {"metric": "reward", "value": 3.0, "step": 8}
    assert trainer.strategy.saved[-1] == ("_actor", "global_step9", 3, expected)


def test_a_best_that_could_not_be_saved_may_be_beaten_by_less(tmp_path: Path):
    trainer = make_trainer(tmp_path)
    trainer.keep_best(0, {"reward": 1.0})
    trainer.strategy.full = True
    trainer.keep_best(2, {"reward": 5.0})
    trainer.strategy.full = False
    trainer.keep_best(4, {"reward": 3.0})
    assert [saved[1] for saved in trainer.strategy.saved] == ["global_step4"]
    assert trainer.best.value == 3.0


def test_the_best_of_an_earlier_run_is_set_aside(tmp_path: Path):
    (tmp_path / "checkpoints" / "_best" / "global_step4").mkdir(parents=True)
    make_trainer(tmp_path).keep_best(0, {"reward": 1.0})
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["_best.previous"]
