"""A whole training run in miniature: a tiny random chat model, a few rows of data, their prompts and baseline."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import compute_baseline_perplexity
import prompt_utils
import setup_rl_data
from openrlhf.cli.flags import parse_args
from openrlhf.cli.train_ppo_ray import train
from openrlhf.cli.validate import checked_config
from openrlhf.config import TrainConfig
from support.tiny_models import FOR_VLLM, random_model

REPO = Path(__file__).parents[2]

CHATML = """\
{% for m in messages %}<|im_start|>{{ m['role'] }}
{{ m['content'] }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

ERRANDS = [
    ("Ines counts the ferries.", "The seventh ferry was late, and Ines wrote a zero beside its name."),
    ("Ola mends the clock.", "It had stopped at noon because somebody had wanted it to be noon."),
    ("The baker locks up.", "He left one loaf on the sill for whoever still came by at that hour."),
    ("Rain in the quarry.", "By evening the crane stood in water to its knees like a patient animal."),
    ("A letter for nobody.", "The postman opened it at last, and found his own handwriting inside."),
    ("Marek sells the boat.", "He kept the oars, which was how his wife knew that he was not done with rivers."),
]


def make_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Byte-level BPE of 500 tokens, trained on the prompts' own wording."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    texts = [text for errand in ERRANDS for text in errand]
    wording = {name: text for name, text in vars(prompt_utils).items() if not name.startswith("__")}  # no paths
    texts += [text for text in wording.values() if isinstance(text, str)]
    special = ["<|pad|>", "<|im_start|>", "<|im_end|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=CHATML, eos_token="<|im_end|>", pad_token="<|pad|>"
    )
    fast.save_pretrained(folder)
    return fast


def make_model(folder: Path) -> Path:
    """A tied two-layer Qwen2 in fp32 with a chat tokenizer."""
    tokenizer = make_tokenizer(folder)
    model = random_model(
        "qwen2",
        vocab_size=len(tokenizer),
        **FOR_VLLM,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        initializer_range=0.1,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(folder)
    return folder


def make_data(folder: Path, model: Path) -> None:
    """A dataset of messages (3 training rows, 3 for validation), its RL prompts, its baseline map."""
    for split, errands in (("train", ERRANDS[:3]), ("val", ERRANDS[3:])):
        rows = [
            {"messages": [{"role": "user", "content": ask}, {"role": "assistant", "content": gold}]}
            for ask, gold in errands
        ]
        (folder / f"tiny_{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    names = ["--dataset_name", "tiny", "--dataset_dir", str(folder), "--data_dir", str(folder / "rl_data")]
    assert setup_rl_data.main([*names, "--tokenizer_name", str(model)]) == 0
    baseline = [*names, "--model_name", str(model), "--nice_model_name", "tiny", "--output_dir", str(folder)]
    assert compute_baseline_perplexity.main(baseline) == 0


def make_world(folder: Path) -> Path:
    """Model, data, prompts and baseline in one folder."""
    make_data(folder, make_model(folder / "model"))
    return folder


def arguments(world: Path, output: Path, **changes: Any) -> list[str]:
    """The command line of a small CPU run; `changes` replace or add flags (True: a switch, None: left out)."""
    flags: dict[str, Any] = {
        "pretrain": world / "model",
        "prompt_data": f"json@{world / 'rl_data'}",
        "input_key": "prompt",
        "apply_chat_template": True,
        "baseline_ppl_path": world / "prompt_to_datapoint_with_baseline_ppl_tiny.pkl",
        "reward_shape": "nll_delta",
        "advantage_estimator": "group_norm",
        "eval_split": "validation",
        "eval_steps": 2,
        "colocate_actor_ref": True,
        "actor_num_gpus_per_node": 1,
        "ref_num_gpus_per_node": 1,
        "vllm_num_engines": 1,
        "vllm_sync_backend": "gloo",
        "enable_prefix_caching": True,
        "enforce_eager": True,
        "zero_stage": 2,
        "use_kl_loss": True,
        "kl_estimator": "k3",
        "init_kl_coef": 0.01,
        "actor_learning_rate": 1e-3,
        "rollout_batch_size": 2,
        "n_samples_per_prompt": 4,
        "train_batch_size": 8,
        "micro_rollout_batch_size": 2,
        "micro_train_batch_size": 2,
        "prompt_max_len": 400,
        "generate_max_len": 16,
        "num_episodes": 2,
        "save_path": output,
        "ckpt_path": output / "checkpoints",
        **changes,
    }
    argv: list[str] = []
    for name, value in flags.items():
        if value is True:
            argv.append(f"--{name}")
        elif value is not None and value is not False:
            argv += [f"--{name}", str(value)]
    return argv


def run_in_process(argv: list[str], actor_class: Any) -> TrainConfig:
    """Trains in this process's own Ray cluster."""
    # Ray's workers import the test modules by name.
    os.environ["PYTHONPATH"] = os.pathsep.join(
        str(REPO / folder) for folder in ("tests/integration", "tests", "openrlhf", ".")
    )
    args = parse_args(argv)
    config = checked_config(args, num_gpus=0)
    try:
        train(config, actor_class, vars(args))
    finally:
        ray.shutdown()
    return config


def command(argv: list[str]) -> list[str]:
    return [sys.executable, str(REPO / "train_ncp.py"), *argv]


def quiet_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}


def metrics_rows(output: Path, phase: str) -> list[dict[str, Any]]:
    """The rows of one phase in a run's metrics file."""
    lines = (output / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["phase"] == phase]


def without_times(row: dict[str, Any]) -> dict[str, float]:
    return {name: value for name, value in row.items() if "time" not in name and name != "phase"}
