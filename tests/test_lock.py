"""The lock between processes."""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

import filelock
import log_processes
import pytest
from service import WaitFor

from workers import lock as lock_module
from workers.lock import Lock, LockTimeout, NetworkFilesystem, refuse_network_filesystem


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.lock"


def test_a_lock_is_had_by_one_at_a_time_and_is_free_after_release(path: Path) -> None:
    first, second = Lock(path), Lock(path)
    assert first.try_acquire()
    assert not second.try_acquire()
    first.release()
    assert second.try_acquire()


def test_the_lock_contends_with_a_filelock_on_the_same_file(path: Path) -> None:
    lock = Lock(path)
    lock.acquire(1)
    with pytest.raises(filelock.Timeout):
        filelock.FileLock(path, timeout=0).acquire()
    lock.release()
    with filelock.FileLock(path, timeout=0):
        assert not lock.try_acquire()


def test_a_timeout_names_the_process_that_holds_the_lock_even_a_stopped_one(path: Path) -> None:
    process = log_processes.start(log_processes.hold, str(path))
    try:
        assert log_processes.first_line(process) == "held"
        os.kill(process.pid, signal.SIGSTOP)
        with pytest.raises(LockTimeout) as caught:
            Lock(path).acquire(0.05)
        assert str(caught.value) == f"{path}: the lock was not free within 0.05 s; process {process.pid} holds it"
    finally:
        log_processes.end(process)


def test_a_killed_process_frees_the_lock(path: Path) -> None:
    process = log_processes.start(log_processes.hold, str(path))
    assert log_processes.first_line(process) == "held"
    assert not Lock(path).try_acquire()
    log_processes.end(process)
    Lock(path).acquire(5)


def test_a_forked_child_that_outlives_its_killed_parent_does_not_keep_the_lock(path: Path, wait_for: WaitFor) -> None:
    process = log_processes.start(log_processes.hold_beside_a_child, str(path))
    child = int(log_processes.first_line(process))
    try:
        # The child may not have run yet; once it has, only the parent has the lock.
        wait_for(lambda: str(path) not in _files_of(child), what="the child letting go of the lock file")
        assert not Lock(path).try_acquire()
        process.kill()
        process.wait()
        Lock(path).acquire(5)
        assert os.path.exists(f"/proc/{child}")
    finally:
        os.kill(child, signal.SIGKILL)
        log_processes.end(process)


def _files_of(pid: int) -> set[str]:
    return {os.readlink(link) for link in Path(f"/proc/{pid}/fd").iterdir()}


def test_a_child_that_closes_what_it_inherited_does_not_free_its_parents_lock(path: Path) -> None:
    lock = Lock(path)
    lock.acquire(1)
    child = os.fork()
    if child == 0:
        lock.release()
        lock.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert not Lock(path).try_acquire()
    lock.release()


def test_a_child_can_take_the_lock_itself(path: Path) -> None:
    lock = Lock(path)
    lock.acquire(1)
    lock.release()
    child = os.fork()
    if child == 0:
        os._exit(0 if lock.try_acquire() else 1)
    assert os.waitpid(child, 0)[1] == 0


@pytest.mark.parametrize("replaced", [False, True])
def test_a_lock_file_deleted_behind_our_back_does_not_give_the_lock_to_two(path: Path, replaced: bool) -> None:
    idle, other = Lock(path), Lock(path)
    idle.acquire(1)
    idle.release()
    if replaced:
        (path.parent / "new").touch()
        os.rename(path.parent / "new", path)
    else:
        os.unlink(path)
    assert other.try_acquire()
    assert not idle.try_acquire()
    other.release()
    assert idle.try_acquire()


def test_a_waiter_for_a_deleted_lock_file_goes_on_to_the_new_one(path: Path) -> None:
    holder, waiter, other = Lock(path), Lock(path), Lock(path)
    holder.acquire(1)
    assert not waiter.try_acquire()
    os.unlink(path)
    assert other.try_acquire()
    holder.release()
    with pytest.raises(LockTimeout) as caught:
        waiter.acquire(0)
    assert caught.value.args[2] == os.getpid()


def test_a_waiter_for_a_deleted_lock_file_names_who_holds_that_one(path: Path) -> None:
    holder, waiter = Lock(path), Lock(path)
    holder.acquire(1)
    assert not waiter.try_acquire()
    os.unlink(path)
    with pytest.raises(LockTimeout, match=f"process {os.getpid()} holds it"):
        waiter.acquire(0)


def test_the_lock_file_is_opened_for_reading_only_so_that_another_users_will_do(path: Path) -> None:
    path.touch(0o444)
    lock = Lock(path)
    assert lock.try_acquire()
    (fd,) = (int(link.name) for link in Path("/proc/self/fd").iterdir() if _leads_to(link, path))
    assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY


def _leads_to(link: Path, path: Path) -> bool:
    return os.path.lexists(link) and os.readlink(link) == str(path)


def test_a_relative_lock_stays_where_it_was_when_the_directory_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path / "a")
    lock = Lock(Path("x.lock"))
    monkeypatch.chdir(tmp_path)
    assert lock.try_acquire()
    assert (tmp_path / "a" / "x.lock").exists()


def test_nobody_holds_a_free_or_absent_lock(path: Path) -> None:
    assert Lock(path).holder() is None
    path.touch()
    assert Lock(path).holder() is None


def test_a_local_disk_is_not_refused(tmp_path: Path) -> None:
    refuse_network_filesystem(tmp_path / "absent" / "log.jsonl")


def test_a_network_file_system_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = next(
        row.split()[2] for row in Path("/proc/self/mounts").read_text("utf-8").splitlines() if row.split()[1] == "/proc"
    )
    monkeypatch.setattr(lock_module, "_NETWORK", (kind,))
    with pytest.raises(NetworkFilesystem, match=f"/proc/x: lies on a network file system \\({kind}\\)"):
        refuse_network_filesystem(Path("/proc/x"))
