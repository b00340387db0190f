"""An export to a hub, through the hub's own client, against a server that speaks its API."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from openrlhf.cli.hub_upload import without
from support.exported import make_checkpoint, make_export
from support.fake_hub import TOKEN, FakeHub, Repository


@pytest.fixture
def exported(tmp_path: Path) -> list[str]:
    """The command's CKPT and OUT; OUT is there, so that the command goes on with the upload."""
    checkpoint = make_checkpoint(tmp_path / "_actor")
    make_export(checkpoint, tmp_path / "out")
    return [str(checkpoint.path), str(tmp_path / "out")]


def push(argv: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Exit code and everything that is printed. A process: the client reads its environment when it is imported."""
    command = [sys.executable, "-m", "openrlhf.cli.export_hf", "--push_to_hub", "my-model", *argv]
    result = subprocess.run(
        command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
    )
    return result.returncode, result.stdout + result.stderr


def test_all_files_arrive_in_a_private_repository(exported: list[str]):
    with FakeHub() as hub:
        code, output = push(exported, hub.environment())
        assert code == 0, output
        assert f"uploaded to {hub.url}/ines/my-model" in output
    repository = hub.repositories["ines/my-model"]
    assert repository.private
    assert repository.files == {path.name: path.read_bytes() for path in Path(exported[1]).iterdir()}
    assert TOKEN not in output


def test_public_is_asked_for(exported: list[str]):
    with FakeHub() as hub:
        code, output = push(["--public", *exported], hub.environment())
        assert code == 0, output
    assert not hub.repositories["ines/my-model"].private


def test_nothing_goes_to_a_public_repository_unasked(exported: list[str]):
    with FakeHub() as hub:
        hub.repositories["ines/my-model"] = Repository(private=False)
        code, output = push(exported, hub.environment())
    assert code == 2
    assert "ines/my-model is there and is public; pass --public, or another name" in output
    assert hub.repositories["ines/my-model"].files == {}


def test_a_repeated_command_goes_on_after_a_failure(exported: list[str]):
    with FakeHub(breaks_after=1) as hub:
        code, output = push(exported, hub.environment())
        assert code == 2
        assert "repeat the command: it goes on where it was" in output
        assert "Traceback" not in output
        assert hub.repositories["ines/my-model"].commits == 0
        assert len(hub.storage) == 1
        hub.breaks_after = None
        code, output = push(exported, hub.environment())
        assert code == 0, output
    assert len(hub.repositories["ines/my-model"].files) == 6
    assert set(hub.stored.values()) == {1}  # nothing was sent twice


@pytest.mark.parametrize("token", ["hf_wrongButSecretAsWell", "no-prefix-secret"])
def test_a_wrong_token_is_one_clear_line_without_it(token: str, exported: list[str]):
    with FakeHub() as hub:
        code, output = push(exported, hub.environment(token))
    assert code == 2
    (line,) = [line for line in output.splitlines() if line.startswith("error:")]
    assert line == (
        f"error: --push_to_hub my-model: {hub.url}: it does not know your token; log in with a token that may write "
        "(hf auth login, or HF_TOKEN)"
    )
    assert token not in output
    assert "Traceback" not in output


@pytest.mark.parametrize("name", ["a/b/c", "no spaces", "-dash"])
def test_a_name_that_cannot_be_is_refused_before_anything_is_made(name: str, tmp_path: Path):
    checkpoint = make_checkpoint(tmp_path / "_actor")
    with FakeHub() as hub:
        code, output = push([str(checkpoint.path), str(tmp_path / "out"), f"--push_to_hub={name}"], hub.environment())
    assert code == 2
    assert f"error: --push_to_hub {name}: " in output
    assert not (tmp_path / "out").exists()
    assert hub.repositories == {}


def test_without_a_token(exported: list[str], tmp_path: Path):
    with FakeHub() as hub:
        code, output = push(exported, {**hub.environment(""), "HF_HOME": str(tmp_path)})
    assert code == 2
    assert "there is no token; log in" in output


def test_no_hub_there(exported: list[str]):
    with FakeHub() as hub:
        environment = hub.environment()
    code, output = push(exported, environment)
    assert code == 2
    assert "the connection broke off" in output
    assert TOKEN not in output
    assert "Traceback" not in output


def test_tokens_are_blotted_out():
    text = "GET with Bearer abc.def failed, hf_abcDEF and secret in it"
    assert without("secret", text) == "GET with (token) failed, (token) and (token) in it"
