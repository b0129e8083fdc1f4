"""The kinds of task, one module each, and what they have in common: how a try ended and what it put out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import msgspec

from workers.beneath import open_regular
from workers.errors import TickpoolError
from workers.masking import Mask
from workers.process import Child, Exit

__all__ = [
    "MAX_OUTPUTS_BYTES",
    "BadOutputs",
    "Conclusion",
    "Outcome",
    "Scene",
    "Started",
    "TaskStatus",
    "as_outputs",
    "read_outputs",
]

MAX_OUTPUTS_BYTES = 32 * 1024
# Readers of outputs recurse: one level more than Python allows would end the whole run.
_MOST_LEVELS = 100

TaskStatus: TypeAlias = Literal["success", "failed", "skipped", "upstream_failed", "cancelled", "timeout"]


class Scene(NamedTuple):
    """Where one attempt runs: its environment, its directory, its `TASK_OUTPUT` file, how its references resolve, and
    the mask for what it says.
    """

    env: Mapping[str, str]
    cwd: str
    output_path: str
    lookup: Callable[[str], Any]
    mask: Mask


class Conclusion(NamedTuple):
    """What an attempt has to say once its process has ended: why it failed (None: it did not), and its outputs."""

    reason: str | None
    outputs: dict[str, Any]


class Started(NamedTuple):
    """A task's running process, and what to ask after its end (exactly once)."""

    child: Child
    conclude: Callable[[Exit], Conclusion]


class Outcome(msgspec.Struct):
    """How one attempt ended."""

    status: TaskStatus
    reason: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    duration_s: float = 0.0
    max_rss_kib: int = 0
    cpu_user_s: float = 0.0
    cpu_sys_s: float = 0.0
    log: str | None = None
    outputs: dict[str, Any] = {}


class BadOutputs(TickpoolError):
    """Outputs that cannot be kept: what is wrong with them."""

    def __str__(self) -> str:
        return f"bad outputs: {self.args[0]}"


def as_outputs(value: object) -> dict[str, Any]:
    """Make a callable's return value into outputs: a dict as it is, None as nothing, anything else as `result`.

    Raises BadOutputs when it is not JSON-able, more than 32 KiB of it or more than 100 levels deep. What comes back is
    plain JSON.
    """
    if value is None:
        return {}
    wrapped = value if isinstance(value, dict) else {"result": value}
    try:
        text = msgspec.json.encode(wrapped)
        plain: dict[str, Any] = msgspec.json.decode(text)
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise BadOutputs(f"the return value cannot be written as JSON: {error}") from error
    if _is_deeper(plain, _MOST_LEVELS):
        raise BadOutputs(f"lists and mappings are more than {_MOST_LEVELS} levels deep")
    # An event is ASCII: there `é` is six bytes long.
    size = len(text) if text.isascii() else len(json.dumps(plain))
    if size > MAX_OUTPUTS_BYTES:
        raise BadOutputs(f"{size} bytes of JSON; at most {MAX_OUTPUTS_BYTES} are kept, put more into a file")
    return plain


def _is_deeper(value: object, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value if isinstance(value, list) else value.values()
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)


def read_outputs(path: str) -> dict[str, Any]:
    """Read a `TASK_OUTPUT` file: one JSON object, or `key=value` lines; no file, no outputs. Raises BadOutputs."""
    try:
        # A link, or a FIFO that nobody writes to, is no output.
        with open(open_regular(path), "rb") as file:
            data = file.read(MAX_OUTPUTS_BYTES + 1)
        text = data.decode("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise BadOutputs(f"TASK_OUTPUT cannot be read: {error}") from error
    if len(data) > MAX_OUTPUTS_BYTES:
        raise BadOutputs(f"TASK_OUTPUT has more than {MAX_OUTPUTS_BYTES} bytes; put more into a file of your own")
    outputs = _parse_object(text) if text.lstrip().startswith("{") else _parse_lines(text)
    return as_outputs(outputs)


def _parse_object(text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadOutputs(f"TASK_OUTPUT begins with `{{` but is not one JSON object: {error}") from error


def _parse_lines(text: str) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    # Not splitlines: a value may hold a form feed or U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        key, equals, value = line.rstrip("\r").partition("=")
        if not equals or not key.strip():
            raise BadOutputs(f"line {number} of TASK_OUTPUT is not `key=value`")
        outputs[key.strip()] = value
    return outputs
