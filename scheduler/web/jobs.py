"""Commands of `tickpool` that take long: run beside the server, at the lowest priority, one of a kind at a time."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import msgspec
from starlette.concurrency import run_in_threadpool

__all__ = ["Job"]

T = TypeVar("T")
_LAST_WORDS = 2000


class Job(Generic[T]):
    """A command whose `--json` is kept: `result` of the last run that told any, made at `made_s`.

    The last run was for `key` and ended at `at_s`; `problem` says why it told none.
    """

    def __init__(self, told: type[T], announce: Callable[[], None]) -> None:
        self.result: T | None = None
        self.at_s: float | None = None
        self.made_s: float | None = None
        self.key: object = None
        self.problem = ""
        self._decoder = msgspec.json.Decoder(told)
        self._announce = announce
        self._task: asyncio.Task[None] | None = None
        # Wall clocks are set back: how old it is goes by the other clock.
        self._ended_s: float | None = None

    @property
    def age_s(self) -> float | None:
        """Return how long ago the last run ended."""
        return None if self._ended_s is None else time.monotonic() - self._ended_s

    @property
    def is_running(self) -> bool:
        """Say whether it is being worked out."""
        return self._task is not None and not self._task.done()

    def start(self, words: Sequence[str], key: object = None) -> None:
        """Begin, unless it is under way; `announce` is called when it is done."""
        if not self.is_running:
            self._task = asyncio.create_task(self._run(words, key))

    async def _run(self, words: Sequence[str], key: object) -> None:
        nice = shutil.which("nice")
        command = [*([nice, "-n", "10"] if nice else []), sys.executable, "-m", "scheduler.cli", *words]
        out, err = await _output_of(command)
        self.key, self.at_s, self._ended_s = key, time.time(), time.monotonic()
        try:
            self.result = await run_in_threadpool(self._decoder.decode, out)
            self.problem, self.made_s = "", self.at_s
        except msgspec.DecodeError:
            lines = err.decode("utf-8", "replace").strip().splitlines() or ["it told nothing"]
            self.problem = lines[0][:_LAST_WORDS] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")
        # After the task is done: whoever looks then finds it so.
        asyncio.get_running_loop().call_soon(self._announce)


async def _output_of(command: Sequence[str]) -> tuple[bytes, bytes]:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        return await process.communicate()
    finally:
        if process.returncode is None:  # the server ends
            process.kill()
