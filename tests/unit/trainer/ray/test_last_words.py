"""A process below tells what broke it; the one above reads it, also once that one is gone."""

import subprocess
import sys

from openrlhf.trainer.ray.last_words import LastWords

CHILD = """
import logging
from openrlhf.trainer.ray.last_words import keep_last_words
logger = logging.getLogger("engine")
logger.propagate = False
keep_last_words(logger)
logger.warning("no error")
logger.error("an old one")
logger.error("a worker died")
logger.error("x" * 1000)  # all that a step was given
try:
    {}["lm_head"]
except KeyError:
    logger.exception("a fatal error")
"""


def test_the_two_newest_errors_are_read():
    words = LastWords()
    assert words.read() == ""
    subprocess.run([sys.executable, "-c", CHILD], check=True)
    assert words.read() == "a worker died; KeyError: 'lm_head'"
