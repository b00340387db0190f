"""A checkpoint goes on only with settings under which its step number means the same; other changes are said."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from openrlhf.cli.flags import parse_args, to_config
from openrlhf.errors import UserError
from openrlhf.trainer.resume import (
    FIXED,
    TrainState,
    check_same_settings,
    log_changes,
    read_state,
    resumed_kl_coef,
    run_settings,
)
from openrlhf.utils.checkpoints import Checkpoint
from support.tiny_run import arguments

SAVED = {"seed": 1, "batch.rollout_batch_size": 2, "prompts_sha256": "ab"}
PROMPTS: Any = []


def settings(**changes: Any) -> dict[str, Any]:
    return run_settings(to_config(parse_args(arguments(Path("world"), Path("out"), **changes))), PROMPTS)


def state(**changes: Any) -> TrainState:
    return TrainState(**({"step": 1, "kl_coef": 0.5, "num_updates": 8, "settings": settings()} | changes))


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


def test_a_checkpoint_of_another_version_is_refused():
    with pytest.raises(UserError, match="c was made by another version"):
        read_state(checkpoint({"step": 1}))
