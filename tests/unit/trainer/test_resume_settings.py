"""A checkpoint goes on only with settings under which its step number means the same."""

import pytest

from openrlhf.trainer.ppo_trainer import check_same_settings

SAVED = {"seed": 1, "rollout_batch_size": 2, "prompts_sha256": "ab"}


def test_the_same_settings_go_on():
    check_same_settings(SAVED, dict(SAVED))


def test_every_change_is_named():
    with pytest.raises(ValueError, match=r"rollout_batch_size 2 \(now 3\), prompts_sha256 ab \(now cd\): resume with"):
        check_same_settings(SAVED, {**SAVED, "rollout_batch_size": 3, "prompts_sha256": "cd"})


def test_a_setting_that_the_checkpoint_does_not_know_is_a_change():
    with pytest.raises(ValueError, match=r"max_epochs None \(now 1\)"):
        check_same_settings(SAVED, {**SAVED, "max_epochs": 1})
