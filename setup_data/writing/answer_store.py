"""An append-only file of a model's answers, keyed by what was asked: nothing is asked for twice.

Each line is one answer in JSON, fsynced before it counts. A run that dies leaves at most one torn last line, which the
next run cuts off. While one process writes to a store, no other may.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from openrlhf.errors import UserError
from openrlhf.utils.jsonl import cut_torn_line, read_jsonl
from openrlhf.utils.logging import init_logger

logger = init_logger("setup_data.writing.answer_store")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One kept answer."""

    key: str
    """Hash of the request: model, messages and sampling settings."""
    about: str
    """Whose answer this is, for people who read the file, e.g. `emma 003-chapter-iv, part 1 of 2`."""
    text: str
    usable: bool
    """False for the last of several answers that all failed their parser: the step's default stands in for it."""
    prompt_tokens: int
    completion_tokens: int


class AnswerStore:
    """The answers of one step. Opened for reading alone, it needs no lock and takes no answers."""

    def __init__(self, path: Path, *, writable: bool) -> None:
        """Raises UserError if another process is writing to it, or for a broken line that is not the last."""
        self.path = path
        self._answers: dict[str, Answer] = {}
        self._unwritten: list[Answer] = []
        self._writing = asyncio.Lock()
        self._file = self._open() if writable else None
        self._load()

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(file)
            raise UserError(
                f"{self.path}: another run is writing this step's answers; wait for it or stop it"
            ) from error
        return file

    def _load(self) -> None:
        if not self.path.exists():
            return
        if self._file is not None and (num_bytes := cut_torn_line(self.path)):
            logger.warning("%s: cut off a torn last line of %d bytes", self.path, num_bytes)
        for number, value in read_jsonl(self.path, may_be_torn=True):
            try:
                answer = Answer(**value)
            except TypeError as error:
                raise UserError(f"{self.path}:{number}: not an answer ({error}); remove this line") from error
            self._answers[answer.key] = answer

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, key: str) -> Answer | None:
        return self._answers.get(key)

    async def put(self, answer: Answer) -> None:
        """Returns once the answer is on disk. Answers that arrive during a write share the next one."""
        assert self._file is not None, "opened for reading"
        self._unwritten.append(answer)
        async with self._writing:
            batch, self._unwritten = self._unwritten, []
            if batch:
                await asyncio.to_thread(self._append, batch)
        self._answers[answer.key] = answer

    def _append(self, batch: list[Answer]) -> None:
        assert self._file is not None
        lines = "".join(json.dumps(asdict(answer), ensure_ascii=False) + "\n" for answer in batch).encode()
        while lines:
            lines = lines[os.write(self._file, lines) :]
        os.fsync(self._file)

    def close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def __enter__(self) -> AnswerStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
