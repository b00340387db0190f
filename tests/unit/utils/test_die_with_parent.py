"""A process that asks for it is gone once its parent is killed, or is gone already."""

import os
import subprocess
import sys

import psutil

CHILD = (
    "import os, sys, time; from openrlhf.utils.processes import die_with_parent;"
    "die_with_parent(int(sys.argv[1])); print(flush=True); time.sleep(60)"
)
PARENT = f"""
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", {CHILD!r}, str(os.getpid())], stdout=subprocess.PIPE)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_killed_parent_takes_its_child_along():
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert psutil.wait_procs([child], timeout=30)[1] == []


def test_a_parent_that_is_gone_already_counts():
    another = os.getppid()  # of this process, hence not of the child
    assert subprocess.run([sys.executable, "-c", CHILD, str(another)], check=False, timeout=30).returncode == -9
