"""A reader of pickles that hold plain data, safe on any file: it knows no classes, and what it builds is no larger than
the file.

The baseline map's name and format are fixed, the file may come from elsewhere, and Python's own unpickler trusts what
it reads: nine bytes can ask it for 2 GB, shared tuples for endless hashing, deep ones for the end of the stack. So the
few opcodes that dicts, lists, strings and numbers need are interpreted here (`pickletools` documents them all).
"""

from __future__ import annotations

import math
import os
import pickle
import pickletools
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from openrlhf.errors import UserError

MAX_DEPTH = 100
"""Containers within containers."""
MAX_INT_BYTES = 9
"""64 bits, and one more byte where the sign needs it."""


def load_plain_pickle(path: str | Path) -> Any:
    """Reads dicts with string keys, lists, strings, finite numbers of at most 64 bits, booleans and None.

    Time and memory are proportional to the file's size. Pickles of protocol 2 to 5, as `pickle.dump` writes them.

    Raises:
        UserError: the file is no complete pickle, or holds anything else.
    """
    with open(path, "rb") as file:
        return _PlainPickle(file, os.fstat(file.fileno()).st_size).load()


class _PlainPickle:
    """A stack machine for a few of pickle's opcodes.

    Only strings can be fetched from the memo. So every container has one place, a value is gone from the stack once it
    is in its container, and nothing can contain itself.
    """

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file = file
        self._left = size
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: list[str | None] = []
        self._depths: dict[int, int] = {}
        """id of a container on the stack -> levels of containers in it, where there are any."""

    def load(self) -> Any:
        while (code := self._take(1)) != pickle.STOP:
            operation = _OPERATIONS.get(code)
            if operation is None:
                raise UserError(f"it holds {_name(code)}, and only plain dicts, lists, strings and numbers are read")
            operation(self)
        if len(self._stack) != 1 or self._marks or self._left:
            raise UserError("not a readable pickle: it does not end where its content does")
        return self._stack[0]

    def _take(self, size: int) -> bytes:
        if size > self._left:
            raise UserError("not a readable pickle: it ends too early")
        self._left -= size
        return self._file.read(size)

    def _number(self, kind: str) -> Any:
        return struct.unpack(kind, self._take(struct.calcsize(kind)))[0]

    def _pop(self) -> Any:
        if len(self._stack) <= (self._marks[-1] if self._marks else 0):
            raise UserError("not a readable pickle: a value is missing")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        if not self._marks:
            raise UserError("not a readable pickle: a mark is missing")
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _top(self) -> Any:
        self._stack.append(value := self._pop())
        return value

    def proto(self) -> None:
        if not 2 <= (version := self._number("<B")) <= 5:
            raise UserError(f"not a readable pickle: protocol {version} instead of 2 to 5")

    def frame(self) -> None:
        if self._number("<Q") > self._left:
            raise UserError("not a readable pickle: it ends too early")

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def string(self, length_kind: str) -> None:
        try:
            self._stack.append(self._take(self._number(length_kind)).decode())
        except UnicodeDecodeError as error:
            raise UserError(f"it holds a string that is not text ({error.reason})") from None

    def long(self) -> None:
        size = self._number("<B")
        if size > MAX_INT_BYTES:
            raise UserError("it holds an integer of more than 64 bits")
        self._stack.append(int.from_bytes(self._take(size), "little", signed=True))

    def binfloat(self) -> None:
        if not math.isfinite(value := self._number(">d")):
            raise UserError(f"it holds the number {value}")
        self._stack.append(value)

    def memoize(self) -> None:
        value = self._top()
        self._memo.append(value if isinstance(value, str) else None)

    def put(self, kind: str) -> None:
        if (index := self._number(kind)) != len(self._memo):
            raise UserError(f"not a readable pickle: memo {index} after {len(self._memo)} others")
        self.memoize()

    def get(self, kind: str) -> None:
        index = self._number(kind)
        value = self._memo[index] if index < len(self._memo) else None
        if value is None:
            raise UserError("it refers to one of its parts a second time, which plain data does with strings only")
        self._stack.append(value)

    def append(self) -> None:
        value = self._pop()
        self._extend(self._top(), [value])

    def appends(self) -> None:
        items = self._pop_to_mark()
        self._extend(self._top(), items)

    def setitem(self) -> None:
        value, key = self._pop(), self._pop()
        self._update(self._top(), [key, value])

    def setitems(self) -> None:
        items = self._pop_to_mark()
        self._update(self._top(), items)

    def _extend(self, container: Any, items: list[Any]) -> None:
        if not isinstance(container, list):
            raise UserError("not a readable pickle: list items without a list")
        self._deepen(container, items)
        container.extend(items)

    def _update(self, container: Any, items: list[Any]) -> None:
        keys, values = items[::2], items[1::2]
        if not isinstance(container, dict) or len(keys) != len(values):
            raise UserError("not a readable pickle: dict items without a dict")
        self._deepen(container, values)
        for key, value in zip(keys, values, strict=True):
            if not isinstance(key, str):
                raise UserError(f"it holds a dict whose key is no string but {type(key).__name__}")
            if key in container:
                raise UserError(f"it holds the key {key[:60]!r} twice")
            container[key] = value

    def _deepen(self, container: Any, items: list[Any]) -> None:
        levels = [1 + self._depths.pop(id(item), 0) for item in items if isinstance(item, list | dict)]
        if levels:
            depth = self._depths[id(container)] = max(*levels, self._depths.get(id(container), 0))
            if depth >= MAX_DEPTH:
                raise UserError(f"it holds containers nested more than {MAX_DEPTH} deep")


def _name(code: bytes) -> str:
    for opcode in pickletools.opcodes:
        if opcode.code == code.decode("latin-1"):
            return f"a {opcode.name} instruction"
    return f"the byte {code!r}, which is no instruction"


_OPERATIONS: dict[bytes, Callable[[_PlainPickle], None]] = {
    pickle.PROTO: _PlainPickle.proto,
    pickle.FRAME: _PlainPickle.frame,
    pickle.MARK: _PlainPickle.mark,
    pickle.NONE: lambda machine: machine.push(None),
    pickle.NEWTRUE: lambda machine: machine.push(True),
    pickle.NEWFALSE: lambda machine: machine.push(False),
    pickle.EMPTY_DICT: lambda machine: machine.push({}),
    pickle.EMPTY_LIST: lambda machine: machine.push([]),
    pickle.BININT: lambda machine: machine.push(machine._number("<i")),
    pickle.BININT1: lambda machine: machine.push(machine._number("<B")),
    pickle.BININT2: lambda machine: machine.push(machine._number("<H")),
    pickle.LONG1: _PlainPickle.long,
    pickle.BINFLOAT: _PlainPickle.binfloat,
    pickle.SHORT_BINUNICODE: lambda machine: machine.string("<B"),
    pickle.BINUNICODE: lambda machine: machine.string("<I"),
    pickle.BINUNICODE8: lambda machine: machine.string("<Q"),
    pickle.MEMOIZE: _PlainPickle.memoize,
    pickle.BINPUT: lambda machine: machine.put("<B"),
    pickle.LONG_BINPUT: lambda machine: machine.put("<I"),
    pickle.BINGET: lambda machine: machine.get("<B"),
    pickle.LONG_BINGET: lambda machine: machine.get("<I"),
    pickle.APPEND: _PlainPickle.append,
    pickle.APPENDS: _PlainPickle.appends,
    pickle.SETITEM: _PlainPickle.setitem,
    pickle.SETITEMS: _PlainPickle.setitems,
}
