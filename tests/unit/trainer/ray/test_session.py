"""The token, the environment and the folder of a Ray cluster of ours."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from openrlhf.errors import UserError
from openrlhf.trainer.ray import session
from openrlhf.trainer.ray.session import ensure_token, prepare_environment, session_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_token_is_its_owners_alone(tmp_path: Path):
    path = tmp_path / ".ray" / "auth_token"
    ensure_token(path)
    assert mode(path) == 0o600
    assert mode(path.parent) == 0o700
    assert len(path.read_text()) == 64
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("wide", [0o644, 0o640, 0o604])
def test_a_token_that_others_can_read_is_tightened(tmp_path: Path, wide: int, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "auth_token"
    path.write_text("secret")
    path.chmod(wide)
    ensure_token(path)
    assert mode(path) == 0o600
    assert path.read_text() == "secret"
    assert "could be read by others" in caplog.text


def test_an_empty_token_is_replaced(tmp_path: Path):
    path = tmp_path / "auth_token"
    path.touch()
    ensure_token(path)
    assert len(path.read_text()) == 64


def test_writers_at_once_end_up_with_one_token(tmp_path: Path):
    path = tmp_path / "auth_token"
    seen: list[str] = []

    def write() -> None:
        ensure_token(path)
        seen.append(path.read_text())

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 8
    assert len(set(seen)) == 1


def test_without_home_the_token_is_in_the_users_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    import pwd

    monkeypatch.delenv("HOME", raising=False)
    assert session.default_token_path() == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".ray" / "auth_token"


def test_a_token_that_cannot_be_written_is_a_users_error(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="RAY_AUTH_TOKEN_PATH"):
        ensure_token(tmp_path / "file" / "auth_token")


def test_the_environment_bypasses_proxies_and_keeps_what_is_set(tmp_path: Path):
    environment = {
        "RAY_AUTH_TOKEN_PATH": str(tmp_path / "token"),
        "http_proxy": "http://proxy:1",
        "no_proxy": "example.org",
        "RAY_worker_niceness": "5",
    }
    prepare_environment("127.0.0.1", environment)
    assert environment["no_proxy"] == "example.org,127.0.0.1,localhost"
    assert environment["NO_PROXY"] == "127.0.0.1,localhost"
    assert environment["RAY_worker_niceness"] == "5"
    assert environment[session.CLUSTER_SWITCH] == "0"
    assert mode(tmp_path / "token") == 0o600


def test_only_a_head_on_loopback_is_a_cluster_of_one_machine(tmp_path: Path):
    environment = {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    prepare_environment("192.0.2.1", environment)
    assert session.CLUSTER_SWITCH not in environment
    assert environment["no_proxy"] == "192.0.2.1,127.0.0.1,localhost"


@pytest.fixture
def base(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.getbasetemp() / "b"
    folder.mkdir(exist_ok=True)
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    return folder


def test_the_folder_is_private_and_goes_at_the_end(base: Path):
    with session_folder() as folder:
        assert mode(folder.path) == 0o700
        assert folder.path.parent == base
    assert not folder.path.exists()


def test_a_kept_folder_goes_at_the_next_start_and_one_in_use_stays(base: Path):
    with session_folder() as kept:
        kept.keep = True
    assert kept.path.is_dir()
    with session_folder() as first, session_folder() as second:
        assert not kept.path.exists()
        assert first.path.is_dir()
        assert second.path.is_dir()


def test_a_killed_owner_leaves_no_process_and_no_folder(base: Path):
    code = (
        "import subprocess, time; from openrlhf.trainer.ray import session\n"
        "with session.session_folder() as folder:\n"
        "    child = subprocess.Popen(['sleep', '100']); print(child.pid, folder.path, flush=True); time.sleep(100)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid, path = owner.stdout.readline().split()
    threading.Event().wait(4)  # the reaper has looked
    owner.kill()
    owner.wait()
    for _ in range(100):
        if not Path(path).exists():
            break
        threading.Event().wait(0.1)
    assert not Path(path).exists()
    assert not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split(") ")[1][:1]


@pytest.mark.parametrize(
    ("ending", "said"), [("os._exit(1)", "Ray ended us\n"), ("pass", ""), ("raise SystemExit", "")]
)
def test_last_words_are_said_where_the_owner_could_not_speak(ending: str, said: str, base: Path):
    code = (
        "import os; from openrlhf.trainer.ray import session\n"
        "with session.session_folder() as folder:\n"
        f"    with folder.last_words('Ray ended us'): {ending}\n"
        "    os._exit(1)"
    )
    # its end of the pipe closes when owner and reaper are both gone
    ended = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, check=False, timeout=30)
    assert ended.stderr == said


@pytest.mark.parametrize("mine", [None, "/scratch/compiled"])
def test_what_torch_compiles_is_kept_in_the_users_cache(
    mine: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Torch's own choice is the temporary folder, which may go with the job."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = {"RAY_AUTH_TOKEN": "secret", **({"TORCHINDUCTOR_CACHE_DIR": mine} if mine else {})}
    prepare_environment("127.0.0.1", environment)
    assert environment["TORCHINDUCTOR_CACHE_DIR"] == (mine or str(tmp_path / "openrlhf" / "torchinductor"))
