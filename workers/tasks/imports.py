"""The Python modules that a run's callables live in: where they are found, and which process imports them.

An isolated callable is imported by its forked child, so a module that hangs, exits or crashes on import is its task's
failure alone. From a module's second use in a run on, this process imports it beforehand and its children are born
with it; a module that left a thread behind is never imported here, because threads and fork do not mix. What lies in
the project is forgotten again at the end of the run, so the next run sees the code on disk.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any

from workers.errors import TickpoolError

__all__ = ["CannotImport", "Imports"]

_OWN_PACKAGE = __name__.partition(".")[0]


class CannotImport(TickpoolError):
    """A `call` that names nothing that can be called: its name, and why."""

    def __str__(self) -> str:
        return f"cannot import `{self.args[0]}`: {self.args[1]}"


class Imports:
    """The imports of one run; `project` comes first on `sys.path` from the first call task to `close`."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._on_path = False
        self._proven: set[str] = set()
        self._preloaded: set[str] = set()

    def load(self, name: str) -> Callable[..., Any]:
        """Import `package.module:attribute` into this process. Raises CannotImport, with its cause."""
        module_name, _, path = name.partition(":")
        self._put_project_on_path()
        module = sys.modules.get(module_name)
        if module is None:
            # The directory caches of the import system do not see a file made within their clock's last tick.
            importlib.invalidate_caches()
            try:
                module = importlib.import_module(module_name)
            except Exception as error:
                raise CannotImport(name, f"{type(error).__name__}: {error}") from error
        target: Any = module
        for part in path.split("."):
            target = getattr(target, part, None)
        if not callable(target):
            raise CannotImport(name, f"`{module_name}` has no callable `{path}`")
        return target  # type: ignore[no-any-return]

    def is_loaded(self, name: str) -> bool:
        """Tell whether this process has the callable's module already."""
        return name.partition(":")[0] in sys.modules

    def prove(self, name: str) -> None:
        """Note that a child imported this callable's module and was left without threads."""
        self._proven.add(name.partition(":")[0])

    def preload(self, name: str) -> None:
        """Make ready for a fork: import a proven module, and let the child find the project."""
        self._put_project_on_path()
        module_name = name.partition(":")[0]
        if module_name not in self._proven or module_name in sys.modules:
            return
        before = set(sys.modules)
        self._proven.discard(module_name)
        # Said once by the child that proved it, into its own log.
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(sys.stdout):
            try:
                importlib.import_module(module_name)
            except (Exception, SystemExit):  # noqa: BLE001 - the child will tell it as its task's failure
                return
            finally:
                self._preloaded |= set(sys.modules) - before

    def close(self) -> None:
        """Forget the project's modules imported by `preload`, and its place on the path."""
        for name in self._preloaded:
            file = getattr(sys.modules.get(name), "__file__", None)
            if file is not None and self._is_projects(file) and name.partition(".")[0] != _OWN_PACKAGE:
                del sys.modules[name]
        if self._on_path:
            with contextlib.suppress(ValueError):
                sys.path.remove(self._project)

    def _is_projects(self, file: str) -> bool:
        return file.startswith(self._project + os.sep) and "-packages" + os.sep not in file

    def _put_project_on_path(self) -> None:
        if not self._on_path and self._project not in sys.path:
            sys.path.insert(0, self._project)
            self._on_path = True
