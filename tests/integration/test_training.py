"""Whole runs of `train_ncp.py` on a tiny model: real Ray, DeepSpeed and vLLM, nothing stubbed."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from openrlhf.cli import export_hf
from openrlhf.datasets.chat import tokenize_prompt
from openrlhf.trainer.ppo_utils.experience_maker import RemoteExperienceMaker
from openrlhf.trainer.ppo_utils.samples import Experience, Rewards, Samples
from openrlhf.trainer.ray.ppo_actor import ActorModelRayActor
from openrlhf.utils.seeds import Stream, derive_seed
from openrlhf.vr_cli.baseline_map import BaselineMap
from openrlhf.vr_cli.plan_scoring import first_tokens
from openrlhf.vr_cli.statistics import bootstrap_interval
from prompt_utils import build_baseline_messages, build_planned_messages, extract_plan
from ray_utils import CustomStoryBasedActorModelRayActor, StoryBasedRemoteExperienceMaker
from support.engine_cluster import (
    create_engines,
    greedy_tokens,
    local_ray,
    trainer_greedy_tokens,
    wait_until_started,
)
from support.run_processes import start, wait_for, worker_pid
from support.tiny_run import (
    arguments,
    command,
    make_world,
    metrics_rows,
    quiet_environment,
    run_in_process,
    without_times,
)

# Two episodes of three prompts, two a step: steps of 2, 1, 2 and 1 prompts.
NUM_STEPS = 4


class RecordingExperienceMaker(StoryBasedRemoteExperienceMaker):
    """Keeps what training saw."""

    def make_experiences(self, prompts: Any, *, step: int, **kwargs: Any) -> list[Experience]:
        experiences = super().make_experiences(prompts, step=step, **kwargs)
        torch.save(experiences, Path(self.config.checkpoint.save_path) / f"experiences_{step}.pt")
        return experiences


class RecordingActor(CustomStoryBasedActorModelRayActor):
    remote_experience_maker_class = RecordingExperienceMaker


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def uninterrupted(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a whole run on one rank."""
    output = tmp_path_factory.mktemp("uninterrupted")
    run_in_process(arguments(world, output, save_steps=1, max_ckpt_num=2, save_best="reward"), RecordingActor)
    return output


def mean_gold_nll(model: Any, tokenizer: Any, messages: list[dict[str, str]]) -> float:
    """From plain logits, one conversation at a time, with nothing of ours but the messages."""
    prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    prompt_ids, ids = tokenizer(prompt)["input_ids"], tokenizer(whole)["input_ids"]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    gold = range(len(prompt_ids), len(ids))
    return -sum(logprobs[i - 1, ids[i]].item() for i in gold) / len(gold)


def test_rewards_in_training_equal_those_by_hand(world: Path, uninterrupted: Path):
    model = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(world / "model")
    experiences = [e for s in range(2) for e in torch.load(uninterrupted / f"experiences_{s}.pt", weights_only=False)]
    assert len(experiences) == 3
    for experience in experiences:
        samples = experience.samples
        baseline = mean_gold_nll(model, tokenizer, build_baseline_messages(samples.prompt.datapoint))
        assert len(set(samples.responses)) > 1
        for response, reward in zip(samples.responses, experience.rewards.rewards, strict=True):
            planned = build_planned_messages(samples.prompt.datapoint, extract_plan(response))
            assert reward == pytest.approx(baseline - mean_gold_nll(model, tokenizer, planned), abs=1e-4)


def jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def datapoints_of(world: Path, split: str) -> dict[str, dict[str, Any]]:
    """By id, as the validation prompts name them."""
    baseline = BaselineMap.load(world / "prompt_to_datapoint_with_baseline_ppl_tiny.pkl")
    ids = [row["datapoint_id"] for row in jsonl(world / "rl_data" / f"{split}.jsonl")]
    return {name: baseline.resolve(name, "") for name in ids}


def improvement_by_hand(model: Any, tokenizer: Any, datapoint: dict[str, Any], plan: str) -> float:
    """Percent of perplexity, from plain logits."""
    baseline = mean_gold_nll(model, tokenizer, build_baseline_messages(datapoint))
    planned = mean_gold_nll(model, tokenizer, build_planned_messages(datapoint, plan))
    return 100 * (1 - math.exp(planned - baseline))


def test_an_evaluation_equals_a_recomputation_by_hand(world: Path, uninterrupted: Path):
    """On the split that --eval_split names, before training: from the completions to every number of the row."""
    model = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(world / "model")
    datapoints = datapoints_of(world, "val")
    rows = jsonl(uninterrupted / "eval_completions" / "step_0.jsonl")
    assert [row["datapoint_id"] for row in rows] == list(datapoints)
    assert not set(datapoints) & set(datapoints_of(world, "train"))
    plans = [extract_plan(row["completion"]) for row in rows]
    by_hand = [
        improvement_by_hand(model, tokenizer, datapoint, plan)
        for datapoint, plan in zip(datapoints.values(), plans, strict=True)
    ]
    (measured,) = (row for row in metrics_rows(uninterrupted, "eval") if row["step"] == 0)
    interval = bootstrap_interval([[value] for value in by_hand], seed=derive_seed(42, Stream.BOOTSTRAP))
    expected = {
        "num_datapoints": 3,
        "improvement_pct": statistics.mean(by_hand),
        "improvement_pct_median": statistics.median(by_hand),
        "improvement_pct_positive_frac": sum(value > 0 for value in by_hand) / 3,
        "improvement_pct_ci_low": interval.low,
        "improvement_pct_ci_high": interval.high,
        "truncated_frac": sum(row["finish_reason"] == "length" for row in rows) / 3,
        "plan_length": statistics.mean(len(tokenizer.encode(plan, add_special_tokens=False)) for plan in plans),
        "no_plan_marker_frac": sum("summary" not in row["completion"] for row in rows) / 3,
    }
    assert {name: measured[name] for name in expected} == pytest.approx(expected, abs=1e-2)


def test_controls_stand_beside_every_evaluation(world: Path, uninterrupted: Path):
    """Plans: none, the datapoint's last user turn, and the next datapoint's. Scored once, the same in every row."""
    model = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(world / "model")
    datapoints = datapoints_of(world, "val")
    own = [datapoint["messages"][0]["content"] for datapoint in datapoints.values()]
    texts = {"empty": [""] * 3, "synopsis": own, "other": [*own[1:], own[0]]}
    worth = {
        control: [
            improvement_by_hand(model, tokenizer, datapoint, first_tokens(tokenizer, plan, 16))
            for datapoint, plan in zip(datapoints.values(), plans, strict=True)
        ]
        for control, plans in texts.items()
    }
    scores = jsonl(uninterrupted / "eval_controls.jsonl")
    assert len(scores) == 9
    for control, values in worth.items():
        of_control = [score["improvement_pct"] for score in scores if score["control"] == control]
        assert of_control == pytest.approx(values, abs=1e-2)
        for row in metrics_rows(uninterrupted, "eval"):
            assert row[f"control_{control}/improvement_pct"] == pytest.approx(statistics.mean(values), abs=1e-2)
            difference = row["improvement_pct"] - statistics.mean(values)
            assert row[f"over_{control}/improvement_pct"] == pytest.approx(difference, abs=1e-2)
    assert ["time/controls_s" in row for row in metrics_rows(uninterrupted, "eval")] == [True, False, False]


def test_completions_of_training_are_sampled(uninterrupted: Path):
    for step in range(1, NUM_STEPS + 1):
        rows = jsonl(uninterrupted / "train_completions" / f"step_{step}.jsonl")
        assert len(rows) == 4  # one prompt's
        assert len({row["datapoint_id"] for row in rows}) == 1
        assert all(math.isfinite(row["reward"]) and row["completion"] is not None for row in rows)


def test_the_best_evaluation_has_its_checkpoint(uninterrupted: Path):
    """The policy as it came is not saved, so if no evaluation beats it there is none."""
    rewards = {row["step"]: row["reward"] for row in metrics_rows(uninterrupted, "eval")}
    best = max(rewards, key=lambda step: rewards[step])
    checkpoints = [path.name for path in (uninterrupted / "checkpoints" / "_best").glob("global_step*")]
    assert checkpoints == ([f"global_step{best}"] if best else [])
    (last,) = (uninterrupted / "checkpoints" / "_actor" / "global_step4").glob("COMPLETE")
    assert json.loads(last.read_text())["state"]["best"] == {"metric": "reward", "value": rewards[best], "step": best}


def test_logprobs_in_training_equal_plain_ones(world: Path, uninterrupted: Path):
    """Step 0: policy, reference and vLLM are the same model, and all agree with plain logits."""
    model = AutoModelForCausalLM.from_pretrained(world / "model", dtype=torch.float32)
    for experience in torch.load(uninterrupted / "experiences_0.pt", weights_only=False):
        prompt = experience.samples.prompt.token_ids
        for i, completion in enumerate(experience.samples.completions):
            ids = prompt + completion.token_ids
            with torch.no_grad():
                logits = model(torch.tensor([ids])).logits[0, len(prompt) - 1 : -1]
            expected = logits.log_softmax(-1).gather(-1, torch.tensor(completion.token_ids)[:, None]).squeeze(-1)
            for values in (experience.old_logprobs[i], experience.ref_logprobs[i], torch.tensor(completion.logprobs)):
                torch.testing.assert_close(values, expected, atol=1e-4, rtol=0)


def test_engines_follow_the_policy(uninterrupted: Path):
    """After every update vLLM samples from the new weights: its log-probs stay the trainer's."""
    rows = metrics_rows(uninterrupted, "train")
    assert len(rows) == NUM_STEPS
    assert all(row["grad_norm"] > 0 for row in rows)
    assert all(row["rollout_logprob_diff"] < 1e-4 for row in rows)
    assert rows[-1]["kl"] > 1e-6  # and the weights did move


def input_embedding(model: Path) -> torch.Tensor:
    embedding = AutoModelForCausalLM.from_pretrained(model).get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    return embedding.weight


def test_a_run_leaves_everything_behind(world: Path, uninterrupted: Path):
    assert [row["step"] for row in metrics_rows(uninterrupted, "eval")] == [0, 2, 4]
    (start_row,) = metrics_rows(uninterrupted, "start")
    assert 0 <= start_row["scoring_noise_pct"] < 1e-3  # fp32
    completions = (uninterrupted / "eval_completions" / "step_4.jsonl").read_text().splitlines()
    assert [json.loads(line)["prompt_index"] for line in completions] == [0, 1, 2]
    assert json.loads((uninterrupted / "config.json").read_text())["rollout_batch_size"] == 2
    checkpoints = sorted(path.name for path in (uninterrupted / "checkpoints" / "_actor").glob("global_step*"))
    assert checkpoints == ["global_step3", "global_step4"]
    assert not torch.equal(input_embedding(world / "model"), input_embedding(uninterrupted / "final_model"))
    assert AutoTokenizer.from_pretrained(uninterrupted / "final_model").chat_template


def assert_same_metrics(actual: Path, expected: Path, *, tolerance: float) -> None:
    for phase in ("train", "eval"):
        for one, other in zip(metrics_rows(actual, phase), metrics_rows(expected, phase), strict=True):
            assert without_times(one) == pytest.approx(without_times(other), rel=tolerance, abs=tolerance)


def test_two_ranks_with_uneven_work_equal_one_rank(world: Path, uninterrupted: Path, tmp_path: Path):
    """ZeRO-3; steps of one prompt leave a rank without any, three evaluation prompts split 2 : 1."""
    ranks = {"actor_num_gpus_per_node": 2, "ref_num_gpus_per_node": 2, "zero_stage": 3}
    run_in_process(arguments(world, tmp_path, **ranks), CustomStoryBasedActorModelRayActor)
    assert_same_metrics(tmp_path, uninterrupted, tolerance=1e-3)


def test_killed_and_resumed_equals_uninterrupted(world: Path, uninterrupted: Path, tmp_path: Path):
    argv = arguments(world, tmp_path, save_steps=1, load_checkpoint=True, save_best="reward")
    with start(argv, tmp_path / "first.log") as process:
        wait_for(lambda: (tmp_path / "checkpoints/_actor/global_step2/COMPLETE").exists(), process)
        os.killpg(process.pid, signal.SIGKILL)
    assert subprocess.run(command(argv), env=quiet_environment(), check=False).returncode == 0
    assert_same_metrics(tmp_path, uninterrupted, tolerance=1e-6)
    marker = "checkpoints/_actor/global_step4/COMPLETE"
    assert json.loads((tmp_path / marker).read_text())["state"]["best"] == pytest.approx(
        json.loads((uninterrupted / marker).read_text())["state"]["best"]
    )


def test_resumed_with_other_ranks_and_another_stage_equals_uninterrupted(
    world: Path, uninterrupted: Path, tmp_path: Path
):
    """The last step again, on two ranks at stage 1 from the checkpoint of one rank at stage 2."""
    shutil.copytree(uninterrupted, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "checkpoints/_actor/global_step4")
    ranks = {"actor_num_gpus_per_node": 2, "ref_num_gpus_per_node": 2, "zero_stage": 1}
    argv = arguments(world, tmp_path, save_steps=1, load_checkpoint=True, **ranks)
    run_in_process(argv, CustomStoryBasedActorModelRayActor)
    assert_same_metrics(tmp_path, uninterrupted, tolerance=1e-5)
    assert json.loads((tmp_path / "checkpoints/_actor/global_step4/COMPLETE").read_text())["world_size"] == 2


def test_an_exported_checkpoint_is_the_trained_policy(uninterrupted: Path, tmp_path: Path):
    """In transformers and in vLLM: the greedy tokens of the model that the trainer itself saved after the last step."""
    assert export_hf.main([str(uninterrupted), str(tmp_path / "model"), "--dtype", "fp32"]) == 0
    trained = AutoModelForCausalLM.from_pretrained(uninterrupted / "final_model")
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    prompt = tokenize_prompt(tokenizer, [{"role": "user", "content": "Ola mends the clock."}])
    expected = trainer_greedy_tokens(trained, prompt)
    assert trainer_greedy_tokens(exported, prompt) == expected
    with local_ray():
        engines = create_engines(tmp_path / "model")
        wait_until_started(engines)
        assert greedy_tokens(engines[0], prompt) == expected
    card = (tmp_path / "model" / "README.md").read_text()
    assert "| metric | step 0 | step 4 |" in card
    assert "--rollout_batch_size 2" in card


def test_a_dead_worker_ends_the_run_with_its_cause(world: Path, tmp_path: Path):
    argv = arguments(world, tmp_path, num_episodes=500, eval_steps=None)
    with start(argv, tmp_path / "log") as process:
        wait_for(lambda: (tmp_path / "metrics.jsonl").exists(), process)
        os.kill(worker_pid(process.pid, "ReferenceModelRayActor"), signal.SIGKILL)
        died = time.monotonic()
        assert process.wait(timeout=90) == 1
    assert time.monotonic() - died < 60
    text = (tmp_path / "log").read_text()
    assert "ReferenceModelRayActor" in text
    assert "\x1b" not in text  # Ray colours what it says of it, and the worker's traceback
    assert "(raylet)" not in text


def test_a_reward_function_that_fails_ends_the_run_with_its_name_and_the_datapoint(world: Path, tmp_path: Path):
    """One datapoint of the evaluation's, so before anything is trained."""
    bad = jsonl(world / "rl_data" / "val.jsonl")[1]["datapoint_id"]
    file = tmp_path / "mine.py"
    file.write_text(f"def mine(inputs):\n    return 1 / 0 if inputs.datapoint['datapoint_id'] == {bad!r} else 0.0\n")
    argv = arguments(world, tmp_path, reward_shape=None, reward_function=f"{file}:mine")
    done = subprocess.run(command(argv), env=quiet_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    what = f"raised ZeroDivisionError: division by zero (at {file}:2) for datapoint {bad!r}, sample "
    assert line.startswith(f"error: the reward function '{file}:mine' {what}")
    assert not (tmp_path / "final_model").exists()


class EarlyAlphabetMaker(RemoteExperienceMaker):
    """A reward that is easy to raise, through the same hook: the share of tokens from the vocabulary's first half."""

    def compute_rewards(self, samples: Samples) -> Rewards:
        half = len(self.tokenizer) // 2
        shares = [sum(t < half for t in c.token_ids) / len(c.token_ids) for c in samples.completions]
        return Rewards(rewards=shares)


class EarlyAlphabetActor(ActorModelRayActor):
    def __init__(self, *, rank: int, world_size: int) -> None:
        super().__init__(rank=rank, world_size=world_size, remote_experience_maker_class=EarlyAlphabetMaker)


def test_it_learns(world: Path, tmp_path: Path):
    """The mean reward of a random model is near 1/2; a few steps of GRPO bring it near 1."""
    changes = {"num_episodes": 30, "rollout_batch_size": 3, "n_samples_per_prompt": 8, "train_batch_size": 12}
    argv = arguments(world, tmp_path, eval_steps=None, actor_learning_rate=5e-3, init_kl_coef=0, **changes)
    run_in_process([flag for flag in argv if flag != "--use_kl_loss"], EarlyAlphabetActor)
    rewards = [row["reward"] for row in metrics_rows(tmp_path, "train")]
    assert sum(rewards[:2]) / 2 < 0.7
    assert sum(rewards[-2:]) / 2 > 0.9


def test_baseline_map_is_the_one_the_run_used(world: Path):
    baseline = BaselineMap.load(world / "prompt_to_datapoint_with_baseline_ppl_tiny.pkl")
    assert len(baseline) == 6
