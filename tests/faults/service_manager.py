"""A machine of its own whose PID 1 is systemd, for tests that put the unit file under a real service manager.

It is made of namespaces on a throw-away copy of this machine's root file system (`boot.sh`), so that the commands of
docs/operations.md can be run there as they are written, by root, and leave nothing behind.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
BOOT = Path(__file__).with_name("boot.sh")
UNIT = "tickpool"


class Machine:
    """A machine with this checkout in /opt/tickpool; `checkout` and `state` are what it has there, seen from here."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.checkout = root / "opt" / "tickpool"
        self.state = root / "lib" / "tickpool"
        self._boot: subprocess.Popen[bytes] | None = None
        self._pid_1 = 0
        (self.checkout / ".venv").mkdir(parents=True)
        (root / "lib").mkdir()
        for name in ("scheduler", "workers", "scripts", "docs"):
            shutil.copytree(REPOSITORY / name, self.checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("schedules", "dags"):
            (self.checkout / name).mkdir()

    def start(self) -> None:
        """Begin to boot."""
        words = ["outer", str(self.root), sys.prefix, sys.base_prefix]
        with open(self.root / "boot.err", "wb") as err:
            self._boot = subprocess.Popen(
                ["unshare", "--mount", "sh", str(BOOT), *words], stdin=subprocess.PIPE, stdout=err, stderr=err
            )

    def is_up(self) -> bool:
        """Say whether all that starts at boot has started. Skips the test where systemd cannot be booted."""
        assert self._boot is not None
        if self._boot.poll() is not None:
            pytest.skip(f"systemd cannot be booted here: {self.said()}")
        pid = self.root / "pid"
        if not self._pid_1 and pid.exists():
            children = psutil.Process(int(pid.read_text("ascii"))).children()
            self._pid_1 = children[0].pid if children and children[0].name() == "systemd" else 0
        return bool(self._pid_1) and self.run("systemctl", "is-system-running").stdout.strip() == "running"

    def said(self) -> str:
        """Return what went wrong before systemd ran."""
        return (self.root / "boot.err").read_text("utf-8", "replace").strip()

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in the machine, as its root, in the checkout."""
        enter = ["nsenter", f"--target={self._pid_1}", "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]
        environ = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "SYSTEMD_PAGER": "",
            "SYSTEMD_COLORS": "0",
        }
        return subprocess.run(
            [*enter, "--", "sh", "-c", 'cd /opt/tickpool && exec "$@"', "-", *words],
            env=environ,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def systemctl(self, *words: str) -> str:
        """Run `systemctl`, which must succeed, and return what it prints."""
        done = self.run("systemctl", *words)
        assert done.returncode == 0, f"{words}: {done.stderr}\n{self.journal()}"
        return done.stdout

    def show(self, name: str) -> str:
        """Return a property of the service, such as `MainPID`."""
        return self.systemctl("show", "--value", f"--property={name}", UNIT).strip()

    def journal(self) -> str:
        """Return what the service and systemd have said about it."""
        return self.run("journalctl", "--no-pager", "--output=short-monotonic", f"--unit={UNIT}").stdout

    def drop_in(self, text: str) -> None:
        """Change the unit as `systemctl edit` does."""
        place = f"/etc/systemd/system/{UNIT}.service.d"
        self.run("mkdir", "-p", place)
        self.run("sh", "-c", f"cat > {place}/test.conf", stdin=text)
        self.systemctl("daemon-reload")

    def processes(self) -> dict[int, str]:
        """Return the name of each process in the service's cgroup, by its pid in the machine."""
        group = f"/sys/fs/cgroup/system.slice/{UNIT}.service/cgroup.procs"
        told = self.run("sh", "-c", f'for pid in $(cat {group}); do echo "$pid $(cat /proc/$pid/comm)"; done').stdout
        pairs = (line.split(maxsplit=1) for line in told.splitlines())
        return {int(pair[0]): pair[1] for pair in pairs if len(pair) == 2}

    def pids_outside(self) -> list[int]:
        """Return the machine's processes, by their pids in the world that it runs in."""
        init = psutil.Process(self._pid_1)
        return [init.pid, *(child.pid for child in init.children(recursive=True))]

    def cgroups(self) -> list[Path]:
        """Return the cgroups that the machine has in the world that it runs in, wherever that mounts them."""
        assert self._boot is not None
        return list(Path("/sys/fs/cgroup").rglob(f"tickpool-test-{self._boot.pid}"))

    def end(self) -> None:
        """Switch it off: the kernel kills all of it with its PID 1."""
        if self._boot is not None:
            self._boot.communicate(timeout=30)


def why_not() -> str:
    """Say why no machine can be had here; empty when one can."""
    if os.geteuid() != 0:
        return "only root can make a machine of namespaces"
    if not os.access("/lib/systemd/systemd", os.X_OK):
        return "systemd is not installed"
    missing = [name for name in ("unshare", "nsenter", "useradd", "mount") if not shutil.which(name)]
    return f"{missing[0]} is not installed" if missing else ""
