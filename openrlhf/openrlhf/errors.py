"""The one error class for what a user can mend.

Commands print a `UserError` as one message, without a traceback, and exit with 2. Every other exception is a fault of
the program or of the machine and keeps its traceback.
"""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, flags, files or data: the message says what is wrong, where, and what to do."""
