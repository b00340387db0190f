"""The record of a run: metrics as JSON lines always, TensorBoard and Weights & Biases on request.

    <save_path>/config.json                     the run's resolved configuration
    <save_path>/metrics.jsonl                   {"step": 8, "phase": "start" | "train" | "eval", "reward": ...} a line
    <save_path>/eval_completions/step_8.jsonl   every completion of the evaluation after step 8
    <save_path>/eval_breakdown.jsonl            {"step": 8, "by": "story_id", "value": "ncp", "reward": ...} a line
    <save_path>/eval_controls.jsonl             what plans that nobody learned are worth, one each line
    <save_path>/train_completions/step_8.jsonl  some completions of training step 8; those of the last steps are kept

A run that starts anew sets the files of an earlier one aside; a run that resumes after step N drops what the
interrupted run recorded past N, so that its files are those of an uninterrupted one.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from openrlhf.config import HIDDEN, TrackingConfig
from openrlhf.utils.atomic_io import atomic_write
from openrlhf.utils.jsonl import read_jsonl
from openrlhf.utils.logging import init_logger

logger = init_logger(__name__)

Phase = Literal["start", "train", "eval"]


class MetricsLogger:
    """Writes one run's metrics. Lives on rank 0; call `resume` before the first `log`, or not at all."""

    def __init__(self, config: TrackingConfig, save_path: str | Path, run_config: Mapping[str, Any]) -> None:
        """`run_config`: what the run was started with; saved as JSON, with the W&B key hidden."""
        self._config = config
        self._save_path = Path(save_path)
        self._run_config = hide_secrets(run_config)
        self._started = False
        self._first_rows: dict[str, dict[str, Any]] = {}
        self._tensorboard: Any = None
        self._wandb: Any = None
        with atomic_write(self._save_path / "config.json") as file:
            json.dump(self._run_config, file, indent=2, default=str)
            file.write("\n")

    @property
    def metrics_path(self) -> Path:
        return self._save_path / "metrics.jsonl"

    @property
    def completions_path(self) -> Path:
        return self._save_path / "eval_completions"

    @property
    def train_completions_path(self) -> Path:
        return self._save_path / "train_completions"

    @property
    def breakdown_path(self) -> Path:
        return self._save_path / "eval_breakdown.jsonl"

    @property
    def controls_path(self) -> Path:
        return self._save_path / "eval_controls.jsonl"

    def resume(self, step: int) -> None:
        """Continue the record of a run that was interrupted, after `step`."""
        assert not self._started, "resume comes before the first log"
        for path in (self.metrics_path, self.breakdown_path):
            drop_metrics_after(path, step)
        for folder in (self.completions_path, self.train_completions_path):
            for file_step, path in _step_files(folder):
                if file_step > step:
                    path.unlink()
        self._start_writers(first_step=step + 1)

    def first_row(self, phase: Phase) -> dict[str, Any] | None:
        """The first row of a phase in the whole run's record, what came before an interruption included."""
        if phase not in self._first_rows and self.metrics_path.exists():
            found = next((row for row in read_metrics(self.metrics_path) if row["phase"] == phase), None)
            if found is not None:
                self._first_rows[phase] = found
        return self._first_rows.get(phase)

    def log(self, step: int, phase: Phase, metrics: Mapping[str, float]) -> None:
        """Record the metrics of a training step or of the evaluation after it. NaN and infinity become null."""
        self._start_anew_unless_resumed()
        row = {"step": step, "phase": phase, **{name: _finite(value) for name, value in metrics.items()}}
        _append(self.metrics_path, [row])
        if self._tensorboard is not None:
            for name, value in metrics.items():
                self._tensorboard.add_scalar(f"{phase}/{name}", value, step)
        if self._wandb is not None:
            self._wandb.log({"step": step, **{f"{phase}/{name}": value for name, value in metrics.items()}})

    def log_breakdown(self, step: int, parts: Sequence[Mapping[str, Any]]) -> None:
        """Record the evaluation after `step` by parts of its split."""
        self._start_anew_unless_resumed()
        if parts:
            _append(self.breakdown_path, [{"step": step, **part} for part in parts])

    def log_controls(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the scores of the evaluations' controls, one JSON-ready row each."""
        self._start_anew_unless_resumed()
        if rows:
            _write(self.controls_path, rows)

    def log_train_completions(self, step: int, rows: Sequence[Mapping[str, Any]], *, keep: int) -> None:
        """Keep some of a training step's completions; files of all but the last `keep` steps go."""
        self._start_anew_unless_resumed()
        _write(self.train_completions_path / f"step_{step}.jsonl", rows)
        for _, path in sorted(_step_files(self.train_completions_path))[:-keep]:
            path.unlink()

    def log_completions(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep the completions of the evaluation after `step`, one JSON-ready row each."""
        self._start_anew_unless_resumed()
        _write(self.completions_path / f"step_{step}.jsonl", rows)
        if self._wandb is not None and rows:
            import wandb

            columns = list(rows[0])
            table = wandb.Table(columns=columns, data=[[row.get(column) for column in columns] for row in rows])
            self._wandb.log({"step": step, "eval/completions": table})

    def close(self) -> None:
        """Hand over what is still buffered."""
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()

    def _start_anew_unless_resumed(self) -> None:
        if self._started:
            return
        files = (self.metrics_path, self.breakdown_path, self.controls_path)
        for path in (*files, self.completions_path, self.train_completions_path):
            set_aside(path)
        self._start_writers(first_step=0)

    def _start_writers(self, *, first_step: int) -> None:
        self._started = True
        if self._config.use_tensorboard is not None:
            from torch.utils.tensorboard import SummaryWriter

            folder = os.path.join(self._config.use_tensorboard, self._config.wandb_run_name)
            self._tensorboard = SummaryWriter(log_dir=folder, purge_step=first_step)
        if self._config.use_wandb is not None:
            self._wandb = start_wandb(self._config, self._save_path, self._run_config, resumed=first_step > 0)


def start_wandb(config: TrackingConfig, save_path: Path, run_config: Mapping[str, Any], *, resumed: bool) -> Any:
    """A W&B run whose id is kept in `save_path`, so that a resumed training continues it.

    The charts' x axis is our own step: W&B's would refuse the steps that a resumed run repeats.
    """
    import wandb

    id_path = save_path / "wandb_run_id"
    if not (resumed and id_path.exists()):
        with atomic_write(id_path) as file:
            file.write(uuid.uuid4().hex)
    offline = config.use_wandb == "offline"
    if not offline:
        wandb.login(key=config.use_wandb)
    run = wandb.init(
        entity=config.wandb_org,
        project=config.wandb_project,
        group=config.wandb_group,
        name=config.wandb_run_name,
        config=dict(run_config),
        dir=str(save_path),
        id=id_path.read_text(),
        resume="allow",
        mode="offline" if offline else "online",
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The rows of a metrics file. A last line that a crash cut short is left out.

    Raises:
        UserError: a broken line before the last, named by file and line.
    """
    return [row for _, row in read_jsonl(path, may_be_torn=True)]


def drop_metrics_after(path: Path, step: int) -> None:
    """Remove the rows of later steps from a metrics file, if there is one."""
    if path.exists():
        _write(path, [row for row in read_metrics(path) if row["step"] <= step])


def _append(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _write(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """The whole file, or what was there stays."""
    with atomic_write(path) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _step_files(folder: Path) -> list[tuple[int, Path]]:
    """The files that are named for their steps."""
    return [(int(path.stem.removeprefix("step_")), path) for path in folder.glob("step_*.jsonl")]


def set_aside(path: Path) -> None:
    """Rename an earlier run's file or folder to `NAME.previous`, in place of what was set aside before."""
    if not path.exists():
        return
    previous = path.with_name(path.name + ".previous")
    if previous.is_dir():
        shutil.rmtree(previous)
    os.replace(path, previous)
    logger.info("%s of an earlier run is now %s", path, previous.name)


def hide_secrets(run_config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration without the W&B API key; `offline` is not one."""
    key = run_config.get("use_wandb")
    return {**run_config, "use_wandb": key if key in (None, "offline") else HIDDEN}


def _finite(value: float) -> float | None:
    """JSON has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None
