"""A checkpoint goes on only with settings under which its step number means the same; other changes are said."""

from __future__ import annotations

import json
import logging
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.errors import UserError
from openrlhf.trainer.ppo_trainer import PPOTrainer
from openrlhf.trainer.resume import (
    FIXED,
    TrainState,
    check_same_settings,
    find_resume_point,
    log_changes,
    read_state,
    resumed_kl_coef,
    run_settings,
)
from openrlhf.utils.checkpoints import Checkpoint
from openrlhf.utils.disk import WriteError
from support.tiny_run import arguments

SAVED = {"seed": 1, "batch.rollout_batch_size": 2, "prompts_sha256": "ab"}
PROMPTS: Any = []


def settings(**changes: Any) -> dict[str, Any]:
    return run_settings(to_config(parse_args(arguments(Path("world"), Path("out"), **changes))), PROMPTS)


def state(**changes: Any) -> TrainState:
    return replace(TrainState(step=1, kl_coef=0.5, num_updates=8, settings=settings()), **changes)


def checkpoint(content: dict[str, Any]) -> Checkpoint:
    return Checkpoint(path=Path("c"), sequence=1, world_size=1, zero_stage=2, state=content, files={})


def test_the_same_settings_go_on():
    check_same_settings(settings(), settings())


def test_every_change_is_named():
    with pytest.raises(
        UserError, match=r"batch.rollout_batch_size 2 \(now 3\), prompts_sha256 ab \(now cd\): resume with"
    ):
        check_same_settings(SAVED, {**SAVED, "batch.rollout_batch_size": 3, "prompts_sha256": "cd"})


def test_a_setting_that_the_checkpoint_does_not_know_is_a_change():
    with pytest.raises(UserError, match=r"algorithm.max_epochs None \(now 1\)"):
        check_same_settings(SAVED, {**SAVED, "algorithm.max_epochs": 1})


def test_what_is_fixed_exists_and_another_reward_shape_is_refused():
    assert set(FIXED) <= set(settings())
    with pytest.raises(UserError, match=r"reward.reward_shape nll_delta \(now tiers\)"):
        check_same_settings(settings(), settings(reward_shape="tiers"))


def test_every_other_change_is_logged(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        log_changes(state(), settings(actor_learning_rate=1e-5, num_episodes=4), num_updates=16)
    assert "another optimizer.learning_rate: 1e-05 from here on, 0.001 before" in caplog.text
    assert "another num_episodes: 4 from here on, 2 before" in caplog.text
    assert "schedule keeps its length of 8 optimizer steps (this run has 16 in all)" in caplog.text
    assert len(caplog.records) == 3


def test_nothing_is_logged_without_a_change(caplog: pytest.LogCaptureFixture):
    log_changes(state(), settings(), num_updates=8)
    assert caplog.text == ""


def test_the_kl_coefficient_goes_on_unless_another_is_asked_for():
    assert resumed_kl_coef(state(), settings()) == 0.5
    assert resumed_kl_coef(state(), settings(init_kl_coef=0.2)) == 0.2


def test_the_state_survives_json_and_holds_no_key():
    content = json.loads(json.dumps(state(settings=settings(use_wandb="secret")).to_dict()))
    assert "secret" not in json.dumps(content)
    assert read_state(checkpoint(content)) == state()


def test_a_checkpoint_from_before_there_was_a_best_evaluation_goes_on():
    content = state().to_dict()
    del content["best"]
    assert read_state(checkpoint(content)) == state()


def test_a_checkpoint_of_another_version_is_refused():
    with pytest.raises(UserError, match="c was made by another version"):
        read_state(checkpoint({"step": 1}))


class OneCheckpoint:
    """A strategy that has found this checkpoint."""

    def __init__(self, content: dict[str, Any] | None) -> None:
        self.content = content

    def find_checkpoint(self, directory: Path, *, zero_stage: int) -> Checkpoint | None:
        assert (directory, zero_stage) == (Path("out/checkpoints/_actor"), 2)
        return None if self.content is None else checkpoint(self.content)


def find(content: dict[str, Any] | None, **changes: Any) -> Any:
    config = to_config(parse_args(arguments(Path("world"), Path("out"), **changes)))
    strategy: Any = OneCheckpoint(content)
    return find_resume_point(strategy, config, PROMPTS)


def test_a_run_continues_only_if_it_is_asked_to_and_can():
    assert find(state().to_dict()) is None
    assert find(None, load_checkpoint=True) is None
    point = find(state().to_dict(), load_checkpoint=True, actor_learning_rate=1e-5)
    assert point.state == state()


def test_a_run_with_another_reward_is_refused_before_anything_loads():
    with pytest.raises(UserError, match="another --ckpt_path"):
        find(state().to_dict(), load_checkpoint=True, reward_shape="tiers")


@pytest.mark.parametrize("stops", [False, True])
def test_a_save_that_fails_costs_one_save_or_ends_the_run(stops: bool, caplog: pytest.LogCaptureFixture):
    def save_checkpoint(*_: Any, **__: Any) -> None:
        raise WriteError("out/checkpoints/_actor/global_step3: not enough room, needed 2 GB, free 1 GB")

    trainer: Any = object.__new__(PPOTrainer)
    trainer.config = to_config(parse_args(arguments(Path("w"), Path("out"), save_steps=1, stop_on_failed_save=stops)))
    trainer.strategy = SimpleNamespace(save_checkpoint=save_checkpoint)
    trainer.actor, trainer.tokenizer = SimpleNamespace(model=None), None
    trainer.kl_controller = SimpleNamespace(value=0.1)
    trainer.lr_updates, trainer.settings = 4, {}
    trainer.tracker, trainer.best = object(), None  # rank 0 has a tracker
    with pytest.raises(WriteError) if stops else nullcontext():
        trainer.save_checkpoint(3)
    assert ("step 3 is not saved: out/checkpoints/_actor/global_step3: not enough room" in caplog.text) != stops
