"""The record of a run, real files throughout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from openrlhf.config import TrackingConfig
from openrlhf.trainer.plot import draw_controls, draw_interval, plot_metrics, series
from openrlhf.trainer.tracking import MetricsLogger, read_metrics

CONFIG = TrackingConfig(wandb_run_name="run")


def record(logger: MetricsLogger, first: int, last: int) -> None:
    """Training steps `first` to `last`, an evaluation after each even one."""
    for step in range(first, last + 1):
        logger.log(step, "train", {"reward": step / 10, "kl": 0.0})
        logger.log_train_completions(step, [{"completion": f"Try {step}"}], keep=3)
        if step % 2 == 0:
            logger.log(step, "eval", {"reward": step / 5})
            logger.log_completions(step, [{"prompt_index": 0, "completion": f"Plan nº {step}\nline two"}])
            logger.log_breakdown(step, [{"by": "story_id", "value": "a", "reward": step / 5}])
    logger.close()


def files(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*.jsonl"))}


def test_rows_and_completions_are_json_lines(tmp_path: Path) -> None:
    record(MetricsLogger(CONFIG, tmp_path, {"seed": 42}), 1, 2)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "phase": "train", "reward": 0.1, "kl": 0.0},
        {"step": 2, "phase": "train", "reward": 0.2, "kl": 0.0},
        {"step": 2, "phase": "eval", "reward": 0.4},
    ]
    completions = (tmp_path / "eval_completions" / "step_2.jsonl").read_text()
    assert json.loads(completions) == {"prompt_index": 0, "completion": "Plan nº 2\nline two"}
    assert completions.count("\n") == 1


def test_the_configuration_is_saved_without_the_wandb_key(tmp_path: Path) -> None:
    MetricsLogger(CONFIG, tmp_path, {"seed": 42, "use_wandb": "a-secret-key", "path": Path("x")})
    text = (tmp_path / "config.json").read_text()
    assert "a-secret-key" not in text
    assert json.loads(text) == {"seed": 42, "use_wandb": "(hidden)", "path": "x"}
    MetricsLogger(CONFIG, tmp_path, {"use_wandb": "offline"})
    assert json.loads((tmp_path / "config.json").read_text()) == {"use_wandb": "offline"}


def test_a_resumed_run_records_what_an_uninterrupted_one_does(tmp_path: Path) -> None:
    record(MetricsLogger(CONFIG, tmp_path / "whole", {}), 0, 6)

    interrupted = tmp_path / "resumed"
    record(MetricsLogger(CONFIG, interrupted, {}), 0, 5)  # the last checkpoint is of step 3
    with open(interrupted / "metrics.jsonl", "a") as file:
        file.write('{"step": 6, "pha')  # a row that a crash cut short
    logger = MetricsLogger(CONFIG, interrupted, {})
    logger.resume(3)
    record(logger, 4, 6)
    assert files(interrupted) == files(tmp_path / "whole")


def test_what_a_resumed_run_does_not_repeat_is_gone(tmp_path: Path) -> None:
    record(MetricsLogger(CONFIG, tmp_path, {}), 0, 6)
    MetricsLogger(CONFIG, tmp_path, {}).resume(3)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [0, 0, 1, 2, 2, 3]
    assert [path.name for path in sorted((tmp_path / "eval_completions").iterdir())] == ["step_0.jsonl", "step_2.jsonl"]


def test_a_run_that_starts_anew_sets_the_earlier_one_aside(tmp_path: Path) -> None:
    record(MetricsLogger(CONFIG, tmp_path, {}), 0, 4)
    earlier = (tmp_path / "metrics.jsonl").read_text()
    record(MetricsLogger(CONFIG, tmp_path, {}), 0, 2)
    record(MetricsLogger(CONFIG, tmp_path / "other", {}), 0, 2)
    assert files(tmp_path / "other") == {
        name: text for name, text in files(tmp_path).items() if not (name.startswith("other") or "previous" in name)
    }
    assert (tmp_path / "metrics.jsonl.previous").read_text() == earlier
    assert (tmp_path / "eval_completions.previous" / "step_4.jsonl").exists()
    record(MetricsLogger(CONFIG, tmp_path, {}), 0, 0)  # a third run takes the place of what was set aside
    assert not (tmp_path / "eval_completions.previous" / "step_4.jsonl").exists()


def test_training_completions_are_those_of_the_last_steps(tmp_path: Path) -> None:
    record(MetricsLogger(CONFIG, tmp_path, {}), 1, 12)
    kept = sorted((tmp_path / "train_completions").iterdir())
    assert [path.name for path in kept] == ["step_10.jsonl", "step_11.jsonl", "step_12.jsonl"]
    assert json.loads(kept[0].read_text()) == {"completion": "Try 10"}
    assert len(list((tmp_path / "eval_completions").iterdir())) == 6  # all of them


def test_the_first_row_of_a_phase_is_known_after_an_interruption(tmp_path: Path) -> None:
    logger = MetricsLogger(CONFIG, tmp_path, {})
    assert logger.first_row("eval") is None
    record(logger, 0, 4)
    resumed = MetricsLogger(CONFIG, tmp_path, {})
    resumed.resume(3)
    for one in (logger, resumed):
        assert one.first_row("train") == {"step": 0, "phase": "train", "reward": 0.0, "kl": 0.0}
        assert one.first_row("eval") == {"step": 0, "phase": "eval", "reward": 0.0}
        assert one.first_row("start") is None


def test_the_scores_of_the_controls_are_kept(tmp_path: Path) -> None:
    MetricsLogger(CONFIG, tmp_path, {}).log_controls([{"control": "empty", "improvement_pct": 0.0}])
    assert json.loads((tmp_path / "eval_controls.jsonl").read_text()) == {"control": "empty", "improvement_pct": 0.0}
    record(MetricsLogger(CONFIG, tmp_path, {}), 0, 0)
    assert not (tmp_path / "eval_controls.jsonl").exists()  # they are the earlier run's
    assert (tmp_path / "eval_controls.jsonl.previous").exists()


def test_nan_and_infinity_are_null(tmp_path: Path) -> None:
    logger = MetricsLogger(CONFIG, tmp_path, {})
    logger.log(1, "train", {"loss": float("nan"), "grad_norm": float("inf"), "reward": 1})
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert line == '{"step": 1, "phase": "train", "loss": null, "grad_norm": null, "reward": 1.0}'


def test_a_broken_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\nbroken\n{"step": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl:2: not valid JSON"):
        read_metrics(tmp_path / "metrics.jsonl")


def test_tensorboard_gets_every_metric_and_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = TrackingConfig(use_tensorboard=str(tmp_path / "tb"), wandb_run_name="run")
    record(MetricsLogger(config, tmp_path / "out", {}), 1, 5)
    logger = MetricsLogger(config, tmp_path / "out", {})
    logger.resume(2)
    record(logger, 3, 5)
    events = accumulator.EventAccumulator(str(tmp_path / "tb" / "run"))
    events.Reload()
    assert set(events.Tags()["scalars"]) == {"train/reward", "train/kl", "eval/reward"}
    rewards = events.Scalars("train/reward")
    assert [event.step for event in rewards] == [1, 2, 3, 4, 5]
    assert [event.value for event in rewards] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_series_leaves_out_rows_without_the_metric() -> None:
    rows = [
        {"step": 0, "phase": "eval", "reward": 0.1},
        {"step": 1, "phase": "train", "reward": 0.2},
        {"step": 2, "phase": "train", "reward": None},
        {"step": 3, "phase": "train", "kl": 0.0},
    ]
    assert series(rows, "train", "reward") == ([1], [0.2])
    assert series(rows, "eval", "reward") == ([0], [0.1])
    assert series(rows, "eval", "kl") == ([], [])


@pytest.mark.parametrize("last_step", [-1, 0, 1, 6], ids=lambda step: f"to_step_{step}")
def test_the_plot_is_drawn_whatever_was_recorded(last_step: int, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    record(MetricsLogger(CONFIG, tmp_path, {}), 0, last_step)
    (tmp_path / "metrics.jsonl").touch()
    plot_metrics(tmp_path / "metrics.jsonl", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_the_plot_has_intervals_and_controls() -> None:
    rows = [
        {
            "step": step,
            "phase": "eval",
            "x": 1.0 * step,
            "x_ci_low": step - 1.0,
            "x_ci_high": step + 2.0,
            "control_empty/x": 0.5,
        }
        for step in (0, 4)
    ]
    axes = Figure().subplots()
    draw_interval(axes, rows, "eval", "x", color="red")
    draw_controls(axes, rows, "x")
    (band,) = axes.collections
    corners = {tuple(point) for point in np.asarray(band.get_paths()[0].vertices).tolist()}
    assert corners == {(0.0, -1.0), (0.0, 2.0), (4.0, 3.0), (4.0, 6.0)}
    (level,) = axes.lines
    assert level.get_label() == "no plan"
    assert np.asarray(level.get_ydata()).tolist() == [0.5, 0.5]
