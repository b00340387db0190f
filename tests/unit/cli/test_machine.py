"""What the machine says before torch is loaded."""

from __future__ import annotations

import ctypes
import os

import pytest

from openrlhf.cli import machine
from openrlhf.cli.machine import RAY_SOCKET, driver_gpu_memory, driver_num_gpus, host_memory, temporary_folder_problem
from openrlhf.utils.devices import num_gpus


class Driver:
    """Stands in for NVIDIA's library, which the machines that run these tests need not have."""

    def __init__(self, init_code: int, count: int) -> None:
        self.init_code, self.count = init_code, count

    def cuInit(self, _flags: int) -> int:
        return self.init_code

    def cuDeviceGetCount(self, pointer: object) -> int:
        pointer._obj.value = self.count  # type: ignore[attr-defined]
        return 0

    def cuDeviceGet(self, pointer: object, index: int) -> int:
        pointer._obj.value = 10 + index  # type: ignore[attr-defined]
        return 0

    def cuDeviceTotalMem_v2(self, pointer: object, device: ctypes.c_int) -> int:
        pointer._obj.value = device.value * 2**33  # type: ignore[attr-defined]
        return 0


def test_the_driver_and_torch_agree_on_this_machine() -> None:
    assert driver_num_gpus() in (num_gpus(), None)


@pytest.mark.parametrize(("init_code", "found"), [(0, 4), (100, 0), (999, None)])
def test_gpus_as_the_driver_counts_them(monkeypatch: pytest.MonkeyPatch, init_code: int, found: int | None) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(init_code, 4))
    assert driver_num_gpus() == found


def test_the_memory_of_each_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(0, 2))
    assert driver_gpu_memory() == [10 * 2**33, 11 * 2**33]
    monkeypatch.setattr(ctypes, "CDLL", lambda _: Driver(100, 0))
    assert driver_gpu_memory() == []


@pytest.mark.parametrize(("limit", "counts"), [("max\n", False), ("1000\n", True), ("9223372036854771712\n", False)])
def test_a_containers_limit_is_the_hosts_memory(monkeypatch, tmp_path, limit: str, counts: bool) -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    (tmp_path / "limit").write_text(limit)
    monkeypatch.setattr(machine, "CGROUP_LIMITS", (str(tmp_path / "none"), str(tmp_path / "limit")))
    assert host_memory() == (1000 if counts else total)


def test_the_longest_folder_that_rays_sockets_fit_into() -> None:
    """A socket's path has room for 107 bytes."""
    room = 107 - len(RAY_SOCKET)
    assert temporary_folder_problem({}) is None
    assert temporary_folder_problem({"RAY_TMPDIR": "/" + "t" * (room - 1)}) is None
    assert "RAY_TMPDIR=" in str(temporary_folder_problem({"RAY_TMPDIR": "/" + "t" * room}))
    assert "TMPDIR=" in str(temporary_folder_problem({"TMPDIR": "/" + "ü" * (room // 2)}))  # two bytes each
    assert temporary_folder_problem({"RAY_TMPDIR": "/tmp", "TMPDIR": "/" + "t" * room}) is None  # Ray's own wins
    assert temporary_folder_problem({"RAY_TMPDIR": "/" + "t" * room, "RAY_ADDRESS": "auto"}) is None  # no new cluster
