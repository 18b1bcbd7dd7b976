"""A pickle machine that can build data and nothing else.

Python's own Unpickler calls what the file names, sets attributes, and allocates what the file
claims before it looks. This machine knows the few opcodes that ``torch.save`` writes, bounds
every size and count first, and hands the names of globals to a table of inert rules.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from typing import Any

from snn_deploy.errors import InputError, SnnDeployError

MAX_OPCODES = 1_000_000
MAX_OBJECTS = 200_000
MAX_DEPTH = 64
MAX_NODES = 1_000_000
MAX_INT_BYTES = 16
_DANGEROUS = frozenset(
    """os posix nt subprocess sys builtins __builtin__ importlib runpy socket shutil pty code
    ctypes pickle _pickle marshal types operator functools webbrowser multiprocessing pdb
    timeit bdb asyncio threading requests urllib http tempfile io pathlib codecs""".split()  # noqa: SIM905
)
_MAX_KEY = 2**60  # larger ints can be made to collide in a dict, which then takes for ever

Rule = Callable[[tuple[Any, ...]], Any]


class Global:
    """An importable thing that a pickle names; ``rule`` turns call arguments into data."""

    __slots__ = ("name", "rule")

    def __init__(self, name: str, rule: Rule) -> None:
        self.name, self.rule = name, rule


class _Mark:
    __slots__ = ()


_MARK = _Mark()
_INT = {0x4B: "<B", 0x4D: "<H", 0x4A: "<i"}  # BININT1, BININT2, BININT
_TEXT = {0x58: 4, 0x8C: 1, 0x8D: 8}  # BINUNICODE, SHORT_BINUNICODE, BINUNICODE8: length's bytes
_LONG = {0x8A: 1, 0x8B: 4}
_CONSTANT = {0x4E: None, 0x88: True, 0x89: False}
_TUPLE = {0x85: 1, 0x86: 2, 0x87: 3}
_PUT = {0x71: 1, 0x72: 4}
_GET = {0x68: 1, 0x6A: 4}


def refuse_dangerous(module: str, name: str, where: str) -> None:
    """Raise InputError for a global that only an attack names; ``where``: the pickle."""
    full = f"{module}.{name}"
    if module.partition(".")[0] in _DANGEROUS or "\n" in full or not full.isprintable():
        raise InputError(
            f"the file asks to run {full}: this may be an attack, nothing was run",
            where=where,
            hint="delete the file, or ask its author for a state_dict or .safetensors file",
        )


class PickleData:
    """Runs one pickle. find(module, name) -> Global; load(persistent id) -> a value.

    where: the pickle, for messages; remedy: how such a file is written again. Raises InputError,
    and whatever the two functions raise. Results are what the rules return and plain dict, list,
    tuple, str, int, float, bool, None.
    """

    def __init__(
        self,
        data: bytes,
        where: str,
        *,
        find: Callable[[str, str], Global],
        load: Callable[[Any], Any],
        remedy: str = "write the file again with torch.save",
    ) -> None:
        self._data, self._where, self._find, self._load = data, where, find, load
        self._remedy = remedy
        self._at, self._objects = 0, 0
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Return the object that the pickle describes."""
        try:
            for _ in range(MAX_OPCODES):
                code = self._take(1)[0]
                if code == 0x2E:  # STOP
                    if len(self._stack) != 1 or self._at != len(self._data):
                        raise self.bad("it does not end where it should")
                    return self._stack[0]
                self._step(code)
        except SnnDeployError:
            raise
        except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise self.bad("its opcodes do not fit together") from error
        raise self._limit("opcodes", MAX_OPCODES)

    def bad(self, what: str) -> InputError:
        """Return the error for a malformed pickle."""
        return InputError(
            f"damaged or hostile pickle: {what}",
            where=self._where,
            used=f"byte {self._at:,} of {len(self._data):,}",
            hint=f"{self._remedy}, and do not trust where it came from",
        )

    def _limit(self, what: str, limit: int) -> InputError:
        return InputError(
            f"the pickle holds too many {what}",
            where=self._where,
            used=f"more than {limit:,} of {limit:,} {what}",
            hint="save tensors rather than long Python lists, one state_dict per file",
        )

    def _take(self, count: int) -> bytes:
        end = self._at + count
        if end > len(self._data):
            raise self.bad("it is cut off")
        part, self._at = self._data[self._at : end], end
        return part

    def _number(self, count: int) -> int:
        return int.from_bytes(self._take(count), "little")

    def _line(self) -> str:
        end = self._data.find(b"\n", self._at, self._at + 300)
        if end < 0:
            raise self.bad("a name does not end")
        return self._take(end - self._at + 1)[:-1].decode("ascii", "backslashreplace")

    def _counted(self, value: Any) -> Any:
        self._objects += 1
        if self._objects > MAX_OBJECTS:
            raise self._limit("containers and tensors", MAX_OBJECTS)
        return value

    def _pop_to_mark(self) -> list[Any]:
        for at in range(len(self._stack) - 1, -1, -1):
            if self._stack[at] is _MARK:
                items = self._stack[at + 1 :]
                del self._stack[at:]
                return items
        raise self.bad("a mark is missing")

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise self.bad("a value is missing")
        return value

    def _step(self, code: int) -> None:
        push = self._stack.append
        if code in _TEXT:
            try:
                push(self._take(self._number(_TEXT[code])).decode("utf-8", "surrogatepass"))
            except UnicodeDecodeError as error:
                raise self.bad("a string is not UTF-8") from error
        elif code in _PUT:
            self._memo[self._number(_PUT[code])] = self._top()
        elif code in _GET:
            push(self._memo[self._number(_GET[code])])
        elif code == 0x94:  # MEMOIZE
            self._memo[len(self._memo)] = self._top()
        elif code in _INT:
            layout = _INT[code]
            push(struct.unpack(layout, self._take(struct.calcsize(layout)))[0])
        elif code in _CONSTANT:
            push(_CONSTANT[code])
        elif code == 0x47:  # BINFLOAT
            push(struct.unpack(">d", self._take(8))[0])
        elif code in _LONG:
            size = self._number(_LONG[code])
            if size > MAX_INT_BYTES:
                raise self.bad(f"an integer of {size} bytes")
            push(int.from_bytes(self._take(size), "little", signed=True))
        elif code == 0x28:  # MARK
            push(_MARK)
        elif code == 0x7D:  # EMPTY_DICT
            push(self._counted({}))
        elif code == 0x5D:  # EMPTY_LIST
            push(self._counted([]))
        elif code == 0x29:  # EMPTY_TUPLE
            push(())
        elif code == 0x74:  # TUPLE
            push(self._counted(tuple(self._pop_to_mark())))
        elif code in _TUPLE:
            items = [self._pop() for _ in range(_TUPLE[code])]
            push(self._counted(tuple(reversed(items))))
        elif code == 0x61:  # APPEND
            self._append([self._pop()])
        elif code == 0x65:  # APPENDS
            self._append(self._pop_to_mark())
        elif code == 0x73:  # SETITEM
            value, key = self._pop(), self._pop()
            self._set([key, value])
        elif code == 0x75:  # SETITEMS
            self._set(self._pop_to_mark())
        else:
            self._step_object(code)

    def _step_object(self, code: int) -> None:
        push = self._stack.append
        if code == 0x63:  # GLOBAL
            push(self._counted(self._find(self._line(), self._line())))
        elif code == 0x93:  # STACK_GLOBAL
            name, module = self._pop(), self._pop()
            if not isinstance(name, str) or not isinstance(module, str):
                raise self.bad("a global's name is not text")
            push(self._counted(self._find(module[:300], name[:300])))
        elif code == 0x52:  # REDUCE
            arguments, function = self._pop(), self._pop()
            if not isinstance(function, Global) or not isinstance(arguments, tuple):
                raise self.bad("it calls something that is no function")
            push(self._counted(function.rule(arguments)))
        elif code == 0x51:  # BINPERSID
            push(self._load(self._pop()))
        elif code == 0x62:  # BUILD: state_dict's _metadata on an OrderedDict, which we do not keep
            self._pop()
            if not isinstance(self._top(), dict):
                raise self.bad("it sets attributes on something that is no dictionary")
        elif code == 0x80:  # PROTO
            if self._take(1)[0] > 5:
                raise self.bad("its protocol is newer than 5")
        elif code == 0x95:  # FRAME
            if self._number(8) > len(self._data) - self._at:
                raise self.bad("a frame is longer than the pickle")
        else:
            raise self.bad(f"opcode 0x{code:02x} builds objects that are no data")

    def _top(self) -> Any:
        value = self._stack[-1]
        if value is _MARK:
            raise self.bad("a value is missing")
        return value

    def _append(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not list:
            raise self.bad("it appends to something that is no list")
        target.extend(items)

    def _set(self, items: list[Any]) -> None:
        target = self._top()
        if type(target) is not dict or len(items) % 2:
            raise self.bad("it sets items of something that is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if isinstance(key, int) and abs(key) > _MAX_KEY:
                raise self.bad("a dictionary key is too large a number")
            if not isinstance(key, str | int | float | None):
                raise self.bad(f"a dictionary key is a {_kind(key)}, not text or a number")
            if key != key:
                raise self.bad("a dictionary key is NaN")
            target[key] = value


def _kind(value: object) -> str:
    return value.name if isinstance(value, Global) else type(value).__name__


def check_tree(root: Any, where: str, leaves: tuple[type, ...]) -> None:
    """Check that a result is a finite tree of plain containers, plain values and ``leaves``.

    Shared parts count every time they are reached, so that whoever walks the result later does
    bounded work. Raises InputError, located by the path of keys.
    """
    plain: tuple[type, ...] = (str, int, float, type(None), *leaves)
    nodes = 1
    todo: list[_Place] = [_Place(root, None, "", 0)]
    while todo:
        place = todo.pop()
        value = place.value
        if isinstance(value, dict):
            items: Iterable[tuple[Any, Any]] = value.items()
        elif isinstance(value, list | tuple):
            items = enumerate(value)
        elif isinstance(value, plain):
            continue
        else:
            raise InputError(
                f"{place} is a {_kind(value)}, not data",
                where=where,
                hint="save tensors, numbers, text, lists and dictionaries only",
            )
        nodes += len(value)
        if nodes > MAX_NODES or place.depth > MAX_DEPTH:
            what = "too large" if nodes > MAX_NODES else "nested too deeply, or holds itself"
            raise InputError(
                f"the structure is {what}",
                where=f"{where} -> {place}",
                used=f"more than {MAX_NODES:,} values or {MAX_DEPTH} levels",
                hint="save a flat dictionary of tensors",
            )
        todo += [
            _Place(item, place, key, place.depth + 1)
            for key, item in items
            if not isinstance(item, plain)
        ]


class _Place:
    """A value and the keys that lead to it."""

    __slots__ = ("depth", "key", "parent", "value")

    def __init__(self, value: Any, parent: _Place | None, key: object, depth: int) -> None:
        self.value, self.parent, self.key, self.depth = value, parent, key, depth

    def __str__(self) -> str:
        keys: list[str] = []
        place: _Place | None = self
        while place is not None and place.parent is not None:
            keys.append(str(place.key)[:60])
            place = place.parent
        if len(keys) > 6:
            keys = [*keys[:3], "...", *keys[-3:]]
        return ".".join(reversed(keys)) or "the file's content"


def is_count(value: object) -> bool:
    """Return whether a value is a non-negative int (a bool is none)."""
    return type(value) is int and value >= 0
