"""One OS process and its tree: start, identity, end, sweep; and the bounded log of its output."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workers import process, process_tree
from workers.process import CannotStart, Identity
from workers.task_log import TAIL_BYTES, TaskLog

ENV = {"PATH": os.environ["PATH"]}


@pytest.fixture
def output() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_WRONLY)
    yield fd
    os.close(fd)


def _exit_of(argv: list[str], output: int) -> process.Exit:
    return process.spawn(argv, env=ENV, cwd="/", output=output).reap()


@pytest.mark.parametrize("code", [0, 1, 2, 77, 127, 128, 137, 255])
def test_an_exit_code_is_told_exactly(code: int, output: int) -> None:
    assert _exit_of(["sh", "-c", f"exit {code}"], output)[:2] == (code, None)


@pytest.mark.parametrize("number", sorted({1, 2, 3, 4, 6, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 31, 34, 64}))
def test_a_death_by_signal_is_told_exactly(number: int, output: int) -> None:
    assert _exit_of(["sh", "-c", f"ulimit -c 0; kill -{number} $$"], output)[:2] == (None, number)


def test_cpu_and_memory_of_a_process_are_measured() -> None:
    # Linux counts what the parent held at the exec for the child too: the parent is to be small, as workers are.
    measure = (
        "import os, sys; from workers import process\n"
        "argv = [sys.executable, '-c', 'x = b\"x\" * 200_000_000\\nfor i in range(3_000_000): pass']\n"
        "end = process.spawn(argv, env=dict(os.environ), cwd='/', output=2).reap()\n"
        "print(end.max_rss_kib, end.cpu_user_s + end.cpu_sys_s)"
    )
    done = subprocess.run([sys.executable, "-c", measure], check=True, capture_output=True, text=True)
    max_rss_kib, cpu_s = map(float, done.stdout.split())
    assert 195_000 < max_rss_kib < 400_000
    assert 0.01 < cpu_s < 20


@pytest.mark.parametrize(
    ("content", "mode", "code", "why"),
    [
        (None, 0, 127, "command not found"),
        (b"#!/bin/sh\n", 0o644, 126, "permission denied"),
        (b"\x00\x01\x02", 0o755, 126, "not a program"),
    ],
)
def test_a_command_that_cannot_run_gets_the_shells_code(
    tmp_path: Path, output: int, content: bytes | None, mode: int, code: int, why: str
) -> None:
    program = tmp_path / "program"
    if content is not None:
        program.write_bytes(content)
        program.chmod(mode)
    with pytest.raises(CannotStart, match=why) as caught:
        _exit_of([str(program)], output)
    assert caught.value.exit_code == code
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


def test_too_long_an_environment_is_told(output: int) -> None:
    with pytest.raises(CannotStart, match="too long together"):
        process.spawn(["true"], env={**ENV, "X": "x" * 3_000_000}, cwd="/", output=output)


def test_a_missing_working_directory_is_told(output: int) -> None:
    with pytest.raises(CannotStart, match="cannot enter the working directory `/nowhere`"):
        process.spawn(["true"], env=ENV, cwd="/nowhere", output=output)


def test_a_nul_in_an_argument_is_told(output: int) -> None:
    with pytest.raises(CannotStart, match="null byte"):
        process.spawn(["echo", "a\0b"], env=ENV, cwd="/", output=output)


def test_no_descriptors_left_is_told(output: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    held = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(output))
        with pytest.raises(CannotStart, match=os.strerror(errno.EMFILE)) as caught:
            process.spawn(["true"], env=ENV, cwd="/", output=output)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in held:
            os.close(fd)
    assert caught.value.exit_code is None


def test_a_command_leads_its_own_session_with_nothing_on_stdin(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        child = process.spawn(
            ["sh", "-c", "readlink /proc/$$/fd/0; cut -d' ' -f6 /proc/$$/stat; echo $$; ls /proc/$$/fd | wc -l"],
            env=ENV,
            cwd="/",
            output=out.fileno(),
        )
        assert child.reap().exit_code == 0
    null, session, pid, descriptors = (tmp_path / "out").read_text().split()
    assert null == "/dev/null"
    assert session == pid == str(child.pid)
    assert int(descriptors) == 3


def test_a_process_with_an_odd_name_is_known_again(tmp_path: Path, output: int) -> None:
    program = tmp_path / "a) R (b 1 2"
    program.symlink_to("/bin/sleep")
    child = process.spawn([str(program), "60"], env=ENV, cwd="/", output=output)
    known = process.identity(child.pid)
    stat = process.read_stat(child.pid)
    assert stat is not None
    assert (stat.ppid, stat.session, stat.pgrp) == (os.getpid(), child.pid, child.pid)
    assert process.is_alive(known)
    assert not process.is_alive(known._replace(starttime=known.starttime + 1))
    assert not process.is_alive(known._replace(boot_id="another boot"))
    child.signal_group(signal.SIGKILL)
    child.reap()
    assert not process.is_alive(known)


def test_a_zombie_is_not_alive(output: int, wait_for: Callable[..., None]) -> None:
    child = process.spawn(["true"], env=ENV, cwd="/", output=output)
    known: Identity = process.identity(child.pid)
    wait_for(lambda: not process.is_alive(known))
    stat = process.read_stat(child.pid)
    assert stat is not None
    assert stat.state == "Z"
    child.reap()


def test_no_process_has_no_identity() -> None:
    with pytest.raises(ProcessLookupError):
        process.identity(2**22 + 1)


def test_a_sweep_ends_what_carries_the_marker_in_any_session(
    tmp_path: Path, output: int, wait_for: Callable[..., None]
) -> None:
    script = "trap '' TERM; setsid sleep 61 & setsid setsid sleep 61 & echo > ready; wait"
    env = {**ENV, "TICKPOOL_RUN": "marker-of-a-sweep"}
    child = process.spawn(["sh", "-c", script], env=env, cwd=str(tmp_path), output=output)
    bystander = process.spawn(["sleep", "61"], env={**env, "TICKPOOL_RUN": "marker"}, cwd="/", output=output)
    is_marked = process_tree.marked_with("TICKPOOL_RUN=marker-of-a-sweep")
    wait_for(lambda: len(process_tree.find(is_marked)) >= 3)
    assert process_tree.sweep("marker-of-a-sweep") >= 3
    assert process_tree.find(is_marked) == []
    assert process.is_alive(process.identity(bystander.pid))
    assert process_tree.sweep(sids=[bystander.pid]) == 1
    assert process_tree.sweep("marker-of-a-sweep", [bystander.pid]) == 0
    # The sweep took their statuses, so there is none left to tell.
    assert child.reap()[:2] == bystander.reap()[:2] == (None, None)


def test_a_subreaper_sweeps_orphans_that_carry_no_marker(tmp_path: Path) -> None:
    script = f"""
import os, sys
sys.path.insert(0, {os.getcwd()!r})
from workers import process_tree
process_tree.become_subreaper()
assert process_tree.is_subreaper() and not process_tree.children_left()
r, w = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.setsid()
        os.write(w, b"x")
        import signal; signal.pause()
    os._exit(0)
os.wait(); os.read(r, 1)
assert process_tree.children_left()
print(process_tree.sweep(children_but=()), process_tree.children_left())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("1 False\n", "")


def test_a_forked_child_keeps_only_its_own_descriptors_and_default_handlers(tmp_path: Path) -> None:
    def body() -> int:
        os.write(1, repr(signal.getsignal(signal.SIGTERM)).encode() + b"\n")
        os.write(1, (" ".join(sorted(os.listdir("/proc/self/fd"))) + "\n").encode())
        os.write(keep, b"kept")
        return 9

    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    keep = os.memfd_create("keep")
    try:
        with open(tmp_path / "out", "wb") as out:
            child = process.fork(body, output=out.fileno(), keep=keep)
            assert child.reap()[:2] == (9, None)
        assert os.pread(keep, 10, 0) == b"kept"
    finally:
        signal.signal(signal.SIGTERM, before)
        os.close(keep)
    lines = (tmp_path / "out").read_text().splitlines()
    assert "<Handlers.SIG_DFL: 0>" in lines
    # 0, 1, 2, the kept one and the directory being listed; multiprocessing's tracker where a test has started it.
    assert len(lines[-1].split()) in (5, 6)


def test_a_forked_child_dies_with_its_parent(tmp_path: Path, wait_for: Callable[..., None]) -> None:
    script = f"""
import os, sys, signal
sys.path.insert(0, {os.getcwd()!r})
from workers import process
fd = os.open("/dev/null", os.O_RDWR)
child = process.fork(signal.pause, output=fd, keep=fd)
print(child.pid, process.identity(child.pid).starttime, flush=True)
signal.pause()
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid, starttime = map(int, parent.stdout.readline().split())
        parent.kill()
    wait_for(lambda: (stat := process.read_stat(pid)) is None or stat.starttime != starttime or not stat.is_running)


def test_a_short_log_is_the_raw_output_with_its_times(tmp_path: Path) -> None:
    log = TaskLog(f"{tmp_path}/new/dir/x.log", 1000)
    assert not log.is_open
    log.write(b"")
    assert not (tmp_path / "new").exists()
    log.write(b"\x00\xff one")
    log.write(b" two")
    log.close()
    assert (tmp_path / "new/dir/x.log").read_bytes() == b"\x00\xff one two"
    offset, when = (tmp_path / "new/dir/x.log.times").read_text().splitlines()[0].split("\t")
    assert offset == "0"
    assert float(when) > 1_700_000_000


def test_a_long_log_keeps_its_beginning_and_its_end(tmp_path: Path) -> None:
    log = TaskLog(f"{tmp_path}/x.log", 100_000)
    data = b"".join(b"%09d\n" % n for n in range(300_000))
    for start in range(0, len(data), 7001):
        log.write(data[start : start + 7001])
    log.close()
    note = b"[tickpool: %d bytes left out]\n" % (len(data) - 100_000 - TAIL_BYTES)
    assert (tmp_path / "x.log").read_bytes() == data[:100_000] + note + data[-TAIL_BYTES:]
    offsets = [int(line.split("\t")[0]) for line in (tmp_path / "x.log.times").read_text().splitlines()]
    assert offsets == sorted(offsets)
    assert offsets[-1] < (tmp_path / "x.log").stat().st_size


def test_a_log_just_past_its_limit_leaves_nothing_out(tmp_path: Path) -> None:
    log = TaskLog(f"{tmp_path}/x.log", 10)
    for byte in b"0123456789abcdef":
        log.write(bytes([byte]))
    log.close()
    assert (tmp_path / "x.log").read_bytes() == b"0123456789abcdef"


def test_a_log_that_cannot_be_written_costs_only_the_output(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    log = TaskLog(f"{tmp_path}/file/x.log", 10)
    log.write(b"x" * 100)
    log.close()
    assert log.is_broken
    assert not log.is_open
