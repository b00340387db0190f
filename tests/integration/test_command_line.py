"""`train_ncp.py` as a process: what is wrong is one message and exit code 2, before anything starts."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from openrlhf.cli.command import run_command
from openrlhf.errors import UserError
from openrlhf.trainer.ray.launcher import wait_all
from support.command_line import GOOD, make_folder

REPO = Path(__file__).parents[2]
NCP = [str(REPO / "train_ncp.py")]
GENERAL = ["-m", "openrlhf.cli.train_ppo_ray"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_folder(tmp_path)
    return tmp_path


def run(
    folder: Path, argv: list[str], command: list[str] = NCP, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command in the folder; it has a minute, which is far more than it needs."""
    clean = {name: value for name, value in os.environ.items() if name not in ("BASELINE_PPL_PATH", "RAY_ADDRESS")}
    return subprocess.run(
        [sys.executable, *command, *argv],
        cwd=folder,
        env=clean | {"HF_HUB_CACHE": str(folder / "no_cache"), "HF_HUB_OFFLINE": "0"} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def refusal(folder: Path, argv: list[str], command: list[str] = NCP, /, **environment: str) -> str:
    """The one line that a refused run says about its one problem."""
    done = run(folder, argv, command, **environment)
    assert done.returncode == 2, done.stderr
    heading, line = done.stderr.splitlines()
    assert heading == "error: 1 problem with the arguments:"
    assert not (folder / "ckpt").exists()
    return line.strip()


def changed(**flags: str | None) -> list[str]:
    """GOOD with flags added or replaced; None: without that flag."""
    argv = list(GOOD)
    for name, value in flags.items():
        if value is None:
            at = argv.index(f"--{name}")
            del argv[at : at + (1 if at + 1 == len(argv) or argv[at + 1].startswith("--") else 2)]
        else:
            argv += [f"--{name}", value]
    return argv


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"pretrain": "rl_data/Typo"}, "no such folder"),
        ({"prompt_data": "x.json"}, "only JSON lines are read"),
        ({"apply_chat_template": None, "input_template": "{q}"}, "only {} can be filled in"),
        ({"apply_chat_template": None, "input_template": "Answer: "}, "holds no {}"),
        ({"save_path": "baseline.pkl"}, "is a file"),
        ({"top_p": "nan"}, "must be a finite number"),
        ({"seed": "1" + "0" * 30}, "must be at most"),
    ],
)
def test_a_value_that_cannot_work(folder: Path, flags: dict[str, str | None], words: str) -> None:
    line = refusal(folder, changed(**flags))
    assert words in line
    assert line.startswith(f"--{list(flags)[-1]} ")


def test_a_kl_loss_without_gradient(folder: Path) -> None:
    line = refusal(folder, [*GOOD, "--use_kl_loss"])  # upstream's default estimator is k1
    assert line.startswith("--kl_estimator k1: ")
    assert "--kl_estimator k3 (or k2)" in line


def test_more_workers_than_a_machine_without_gpu_has_cores(folder: Path) -> None:
    argv = changed(actor_num_gpus_per_node=None, ref_num_gpus_per_node=None, actor_num_nodes="32", ref_num_nodes="32")
    done = run(folder, argv, CUDA_VISIBLE_DEVICES="")  # upstream's defaults: 8 GPUs a node
    assert done.returncode == 2
    assert "--actor_num_gpus_per_node 8: this machine has no GPU, and" in done.stderr
    assert "--ref_num_gpus_per_node 8: this machine has no GPU, and" in done.stderr


@pytest.mark.parametrize("code", ["import not_a_module", "def broken(:", "import sys; sys.exit(3)", "1 / 0"])
def test_a_reward_file_that_does_not_load(folder: Path, code: str) -> None:
    (folder / "reward.py").write_text(f"\n{code}\n")
    line = refusal(folder, changed(baseline_ppl_path=None, remote_rm_url="reward.py"), GENERAL)
    assert line.startswith("--remote_rm_url reward.py: reward.py:2: ")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("flag", ["pretrain", "prompt_data"])
def test_a_hub_that_is_off_refuses_or_never_answers(folder: Path, flag: str, silent_port: int) -> None:
    argv = changed(**{flag: "someone/something"})
    assert "HF_HUB_OFFLINE" in refusal(folder, argv, HF_HUB_OFFLINE="1")
    for port in (1, silent_port):
        line = refusal(folder, argv, HF_ENDPOINT=f"http://127.0.0.1:{port}")
        assert line.startswith(f"--{flag} someone/something: no such folder, and the hub does not answer")


def test_a_model_in_the_cache_needs_no_hub(folder: Path) -> None:
    (folder / "no_cache" / "models--someone--something" / "snapshots").mkdir(parents=True)
    assert run(folder, [*changed(pretrain="someone/something"), "--check_only"], HF_HUB_OFFLINE="1").returncode == 0


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_a_folder_too_deep_for_rays_sockets(folder: Path, variable: str) -> None:
    deep = folder / ("d" * 60)
    deep.mkdir()
    assert refusal(folder, GOOD, **{variable: str(deep)}).startswith(f"{variable}={deep}: too long")


def test_an_unknown_log_level(folder: Path) -> None:
    done = run(folder, GOOD, OPENRLHF_LOG_LEVEL="loud")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "OPENRLHF_LOG_LEVEL='LOUD' is not a log level" in done.stderr


def test_check_only_starts_nothing(folder: Path) -> None:
    (folder / "model" / "config.json").write_text(json.dumps({"model_type": "qwen2", "num_hidden_layers": 1}))
    done = run(folder, [*GOOD, "--check_only"])
    assert done.returncode == 0, done.stderr
    assert "memory, estimated for 1." in done.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["baseline.pkl", "model", "rl_data"]


LOADED = """
import runpy, sys
sys.argv = {argv}
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as exit:
    code = exit.code
print(code, sorted({{"torch", "transformers", "ray", "deepspeed", "vllm", "datasets"}} & sys.modules.keys()))
"""


@pytest.mark.parametrize(
    ("argv", "code"), [(["--help"], 0), (["--help_all"], 0), (["--bf16", "--nothing"], 2), ([], 2)]
)
def test_help_and_refusals_come_before_the_slow_imports(argv: list[str], code: int) -> None:
    program = LOADED.format(argv=[str(REPO / "train_ncp.py"), *argv])
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1] == f"{code} []", done.stderr


@ray.remote
def refuse() -> None:
    raise UserError("no room for 8 training GPUs")


@ray.remote
def break_down() -> None:
    raise ValueError("a fault")


def test_a_workers_error_is_the_users_or_a_fault(capsys: pytest.CaptureFixture[str]) -> None:
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        assert run_command(lambda: bool(wait_all([refuse.remote()]))) == 2
        assert capsys.readouterr().err.splitlines()[-1] == "error: no room for 8 training GPUs"
        with pytest.raises(ValueError, match="a fault"):
            run_command(lambda: bool(wait_all([break_down.remote()])))
    finally:
        ray.shutdown()
