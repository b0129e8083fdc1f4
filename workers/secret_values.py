"""The secrets of a run: where their values are found, which task gets which, and the mask that hides them.

A value is read once a run, when the run begins; one that was not to be had then is looked for again by each attempt of
a task that names it. No message of this module holds a value, nor a path: a path may be a value in the wrong place.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Mapping

from .errors import TickpoolError
from .masking import MIN_BYTES, Mask, MaskedStream

__all__ = ["MAX_BYTES", "RunSecrets", "UnusableSecret", "read_secret"]

MAX_BYTES = 64 * 1024


class UnusableSecret(TickpoolError):
    """A secret that cannot be given to a task: (its name, why)."""

    def __str__(self) -> str:
        return f"secret `{self.args[0]}` {self.args[1]}"


def read_secret(name: str, environ: Mapping[str, str]) -> bytes:
    """Return a value from the first place that has one: the credentials directory of systemd, the file that
    `NAME_FILE` names, the variable `NAME`. An empty variable counts as absent, one newline at a file's end is not part
    of the value.

    Raises UnusableSecret when there is none, or when the first that is there cannot be used.
    """
    directory = environ.get("CREDENTIALS_DIRECTORY")
    if directory and (value := _read_file(name, f"{directory}/{name}", "the credential")) is not None:
        return _checked(name, value, "the credential")
    path, where = environ.get(f"{name}_FILE"), f"the file that {name}_FILE names"
    if path:
        if (value := _read_file(name, path, where)) is None:
            raise UnusableSecret(name, f"cannot be used: {where} does not exist")
        return _checked(name, value, where)
    if text := environ.get(name):
        return _checked(name, os.fsencode(text), f"the variable {name}")
    places = f"$CREDENTIALS_DIRECTORY/{name}, the file that {name}_FILE names, and {name}"
    raise UnusableSecret(name, f"is not there; looked for {places} in the environment of this process")


def _read_file(name: str, path: str, where: str) -> bytes | None:
    """Return the bytes of a file without its last newline; None when there is no file."""
    try:
        # Without O_NONBLOCK, opening a FIFO waits for a writer.
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnusableSecret(name, f"cannot be used: {where} cannot be read: {error.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise UnusableSecret(name, f"cannot be used: {where} is not a regular file")
        with open(fd, "rb", closefd=False) as file:
            return file.read(MAX_BYTES + 2).removesuffix(b"\n")
    except OSError as error:
        raise UnusableSecret(name, f"cannot be used: {where} cannot be read: {error.strerror}") from None
    finally:
        os.close(fd)


def _checked(name: str, value: bytes, where: str) -> bytes:
    if not value:
        wrong = "is empty"
    elif len(value) < MIN_BYTES:
        wrong = f"has fewer than {MIN_BYTES} bytes, too few to be kept out of logs"
    elif len(value) > MAX_BYTES:
        wrong = f"has more than {MAX_BYTES} bytes"
    elif b"\0" in value:
        wrong = "holds a NUL, which no process can be given"
    else:
        return value
    raise UnusableSecret(name, f"cannot be used: {where} {wrong}")


class RunSecrets:
    """The secrets that a DAG declares, as one run has them. `mask` knows every value that was found."""

    def __init__(self, names: Iterable[str], environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._names = tuple(names)
        self._values: dict[str, bytes] = {}
        self.mask = Mask()
        for name in self._names:
            try:
                self._values[name] = read_secret(name, environ)
            except UnusableSecret:
                continue  # a fault of the tasks that name it, told when they start
        self.mask.add(self._values.values())

    def env(self, names: Iterable[str]) -> dict[str, str]:
        """Return the environment variables for a task that names these. Raises UnusableSecret."""
        for name in names:
            if name not in self._values:
                self._values[name] = read_secret(name, self._environ)
                self.mask.add([self._values[name]])
        return {name: os.fsdecode(self._values[name]) for name in names}

    def stream(self) -> MaskedStream | None:
        """Return a filter for the output of a task; None where no task has a secret."""
        return self.mask.stream() if self._names else None
