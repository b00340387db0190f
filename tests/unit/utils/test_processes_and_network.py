"""Signals, processes below this one, ports and proxies."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import textwrap
import time

import psutil
import pytest

from openrlhf.errors import UserError
from openrlhf.utils import network, signals
from openrlhf.utils.processes import descendants, end_processes


def python(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


STOPPING = """\
    import signal, time
    from openrlhf.utils.signals import stop_signals
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it would be ignored, here as in any program
    with stop_signals(first=lambda name: print("first", name, flush=True),
                      second=lambda: print("second", flush=True)) as signals:
        try:
            print("up", flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            if {deaf}:
                time.sleep(60)
    raise SystemExit(signals.exit_code)
"""


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_the_first_signal_interrupts_and_is_told(number: signal.Signals):
    process = python(STOPPING.format(deaf=False))
    assert first_line(process) == "up"
    process.send_signal(number)
    assert first_line(process) == f"first {number.name}"
    assert process.wait(timeout=10) == 128 + number


def test_the_second_signal_ends_what_does_not_end():
    process = python(STOPPING.format(deaf=True))
    assert first_line(process) == "up"
    process.send_signal(signal.SIGINT)
    assert first_line(process) == "first SIGINT"
    process.send_signal(signal.SIGTERM)
    assert first_line(process) == "second"
    assert process.wait(timeout=10) == 143


def test_what_nohup_ignores_stays_ignored():
    code = textwrap.dedent(STOPPING.format(deaf=False)).replace(
        "with stop", "signal.signal(signal.SIGHUP, signal.SIG_IGN)\nwith stop", 1
    )
    process = python(code)
    assert first_line(process) == "up"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    assert process.wait(timeout=10) == 143


def test_a_process_that_ignores_sigterm_is_killed_after_the_grace():
    process = python("import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)")
    assert first_line(process) == "up"
    end_processes([psutil.Process(process.pid)], grace_s=0.2)
    process.wait(timeout=5)
    assert process.returncode in (-signal.SIGKILL, 0)  # psutil may have taken the code


def test_orphans_of_a_child_are_found():
    code = """\
        import subprocess, time
        from openrlhf.utils.processes import adopt_orphans, descendants
        adopt_orphans()
        script = "import subprocess as s; print(s.Popen(['sleep', '60'], stdout=s.DEVNULL, stderr=s.DEVNULL).pid)"
        orphan = int(subprocess.run(["python3", "-c", script], capture_output=True, text=True).stdout)
        print(orphan in [process.pid for process in descendants()], flush=True)
        import os; os.kill(orphan, 9)
    """
    assert first_line(python(code)) == "True"


def test_descendants_of_a_process_that_is_gone():
    process = python("pass")
    process.wait(timeout=10)
    assert descendants(process.pid) == []


def test_a_port_in_use_is_named():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(UserError, match=f"RAY_PORT {port}: nothing can listen on 127.0.0.1:{port}"):
            network.check_port_is_free("127.0.0.1", port, name="RAY_PORT")
    network.check_port_is_free("127.0.0.1", port, name="RAY_PORT")
    network.check_port_is_free("127.0.0.1", network.free_port("127.0.0.1"), name="RAY_PORT")


def test_an_address_of_nobody_is_a_users_error():
    with pytest.raises(UserError, match=r"192\.0\.2\.1"):
        network.interface_of("192.0.2.1")


def test_gloo_and_nccl_stay_on_the_interface_unless_told():
    environment = {"GLOO_SOCKET_IFNAME": "eth7"}
    network.use_interface_of("127.0.0.1", environment)
    assert environment == {"GLOO_SOCKET_IFNAME": "eth7", "NCCL_SOCKET_IFNAME": "=lo"}
    assert network.interface_of("127.1.2.3") == "lo"


def test_a_proxy_for_nothing_stays():
    environment = {"no_proxy": "*", "NO_PROXY": "127.0.0.1"}
    network.bypass_proxies(environment, "127.0.0.1", "10.0.0.1")
    assert environment == {"no_proxy": "*", "NO_PROXY": "127.0.0.1,10.0.0.1"}
