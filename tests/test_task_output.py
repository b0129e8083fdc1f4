"""The logs of a run as lines in order of time, and `tickpool logs`."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from service import WITHOUT_COVERAGE, Service, WaitFor

from dags.jobs.run_logs import _compress
from workers.task_log import TaskLog
from workers.task_output import RunOutput, attempts_of


def write(directory: Path, name: str, text: bytes, *times: tuple[int, float]) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{name}.log").write_bytes(text)
    (directory / f"{name}.log.times").write_text("".join(f"{offset}\t{time_s}\n" for offset, time_s in times))


def test_lines_of_several_tasks_come_in_the_order_of_time(tmp_path: Path) -> None:
    write(tmp_path, "a.1", b"one\nfour\n", (0, 1.0), (4, 4.0))
    write(tmp_path, "b.1", b"two\nthree\n", (0, 2.0), (4, 3.0))
    write(tmp_path, "b.2", b"five", (0, 5.0))
    output = RunOutput(tmp_path)
    assert [(line.text, line.task_id) for line in output.read()] == [
        ("one", "a"), ("two", "b"), ("three", "b"), ("four", "a"),
    ]  # fmt: skip
    (last,) = output.read(is_over=True)
    assert last == (5.0, "b", 2, "five")
    assert output.read(is_over=True) == []
    assert [line.text for line in RunOutput(tmp_path, "a").read()] == ["one", "four"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=12) | st.sampled_from([b"\n", b"a\r\n", "é\n".encode(), b"\xff"]), max_size=12))
def test_what_is_read_while_it_is_written_is_what_was_written(tmp_path: Path, chunks: list[bytes]) -> None:
    for name in os.listdir(tmp_path):
        (tmp_path / name).unlink()
    log, output, found = TaskLog(f"{tmp_path}/t.1.log", 1 << 20), RunOutput(tmp_path), list[str]()
    for chunk in chunks:
        log.write(chunk)
        found += [line.text for line in output.read()]
    log.close()
    found += [line.text for line in output.read(is_over=True)]
    whole = b"".join(chunks)
    texts = whole.decode("utf-8", "replace").split("\n") if whole else [""]
    assert found == [text.rstrip("\r") for text in (texts[:-1] if texts[-1] == "" else texts)]


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("root only\n")
    os.symlink(tmp_path / "secret", tmp_path / "a.1.log")
    os.mkfifo(tmp_path / "b.1.log")
    (tmp_path / "c.1.log").mkdir()
    assert RunOutput(tmp_path).read(is_over=True) == []
    assert attempts_of(tmp_path / "none") == []


def test_a_log_that_was_compressed_is_read_with_its_times(tmp_path: Path) -> None:
    lines = [f"line {number}" for number in range(2000)]
    text = "".join(f"{line}\n" for line in lines).encode()
    write(tmp_path, "a.1", text, *((number * 40, 10.0 + number) for number in range(400)))
    write(tmp_path, "b.1", b"between\n", (0, 11.5))
    plain = RunOutput(tmp_path).read(is_over=True)
    for name in ("a.1.log", "a.1.log.times"):
        _compress(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["a.1.log.gz", "a.1.log.times.gz", "b.1.log", "b.1.log.times"]
    assert RunOutput(tmp_path).read(is_over=True) == plain
    assert [line.text for line in plain if line.task_id == "a"] == lines
    damaged = bytearray((tmp_path / "a.1.log.gz").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (tmp_path / "a.1.log.gz").write_bytes(damaged)
    assert RunOutput(tmp_path, "b").read(is_over=True) == [line for line in plain if line.task_id == "b"]
    assert len(RunOutput(tmp_path, "a").read(is_over=True)) <= len(lines)
    # One that a compression was interrupted in is there twice, and is told once.
    write(tmp_path, "a.1", b"plain\n", (0, 1.0))
    assert [line.text for line in RunOutput(tmp_path, "a").read(is_over=True)] == ["plain"]


def test_a_time_that_a_task_made_up_orders_nothing(tmp_path: Path) -> None:
    for time_s in ("nan", "inf", "-inf", "-1", "1e300", "1e999"):
        write(tmp_path, "a.1", b"x\n")
        (tmp_path / "a.1.log.times").write_text(f"0\t{time_s}\n")
        assert RunOutput(tmp_path).read() == [(0.0, "a", 1, "x")]


# -- tickpool logs ------------------------------------------------------------------------------------------------


def test_the_lines_of_a_run_are_followed_while_it_runs_through_its_retries(service: Service, wait_for: WaitFor) -> None:
    script = 'echo "try $ATTEMPT"; while [ ! -e go ]; do sleep 0.05; done; printf end; [ "$ATTEMPT" = 2 ]'
    run_id = service.ask(service.tasks("d", {"id": "say", "run": script}), retries={"max": 1})
    service.start()
    wait_for(lambda: "run_started" in str(service.story(run_id)), what="the run")
    follower = service.launch("-m", "scheduler.cli", "logs", "-f", run_id)
    wait_for(lambda: service.out() == "say | try 1\n", what="the first line")
    (service.root / "go").touch()
    assert follower.wait(20) == 0
    assert service.out().splitlines() == ["say | try 1", "say | end", "say | try 2", "say | end"]
    assert service.command("logs", run_id).stdout.splitlines() == ["say | try 2", "say | end"]
    assert service.command("logs", run_id, "--attempt", "1", "--tail", "1").stdout == "say | end\n"
    (first, _) = [json.loads(line) for line in service.command("logs", run_id, "say", "--json").stdout.splitlines()]
    assert (first["task_id"], first["task_attempt"], first["line"]) == ("say", 1, "try 2")


@pytest.fixture
def ended(service: Service) -> Service:
    write(service.root / "logs" / "runs" / "d.1" / "1", "load.1", b"\x1b[2Jhi\n", (0, 1.0))
    write(service.root / "logs" / "runs" / "d.1" / "1", "save.2", b"ho\n", (0, 2.0))
    (service.root / "logs" / "runs" / "d.2").mkdir()
    return service


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ("d.3", 2, "no run `d.3`: none is on record\n"),
        ("../runs", 2, "no run `../runs`: none is on record\n"),
        ("d.1 laod", 2, "no output of task `laod`; did you mean `load`?\n"),
        ("d.1 --attempt 2", 2, "run `d.1` has no attempt 2; it has 1\n"),
        ("d.1 --tail 0", 2, "tickpool logs: argument --tail: 0: write a whole number from 1 to 1000000 (see tickpool"),
        ("d.2", 0, "run d.2: no output\n"),
    ],
)
def test_output_that_is_not_there_is_told_with_what_there_is(ended: Service, words: str, code: int, told: str) -> None:
    done = ended.command("logs", *words.split())
    assert (done.returncode, done.stdout, done.stderr[: len(told)]) == (code, "", told)


@pytest.mark.parametrize(
    ("environ", "name"), [({}, "\033[36mload |\033[0m"), ({"NO_COLOR": "1"}, "load |")], ids=["colours", "NO_COLOR"]
)
def test_a_terminal_gets_colours_but_none_of_a_tasks_own(ended: Service, environ: dict[str, str], name: str) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "scheduler.cli", "logs", "d.1"]
    with subprocess.Popen(command, cwd=ended.root, env=ended.env(**environ), stdout=theirs) as process:
        os.close(theirs)
        text = os.read(ours, 4096)
        while b"ho" not in text:
            text += os.read(ours, 4096)
        assert process.wait(20) == 0
    os.close(ours)
    assert text.decode().splitlines()[0] == f"{name} �[2Jhi"
    assert "save.2 |" in text.decode()


def test_of_a_long_log_the_newest_lines_are_read_and_those_before_are_counted(tmp_path: Path) -> None:
    def lines(first: int, count: int) -> bytes:
        return b"".join(b"%09d\n" % number for number in range(first, first + count))

    write(tmp_path, "a.1", lines(0, 1_000_000), (0, 1.0), (9_999_990, 2.0))
    output = RunOutput(tmp_path)
    count, read = output.newest(1_000_000, 1 << 20)
    assert count == 1_000_000
    assert [int(line.text) for line in read] == list(range(1_000_000 - len(read), 1_000_000))
    assert 1 << 20 <= 10 * len(read) < 3 << 20
    assert [line.time_s for line in read[-2:]] == [1.0, 2.0]
    with (tmp_path / "a.1.log").open("ab") as file:
        file.write(lines(1_000_000, 1) + lines(1_000_001, 1)[:4])
    assert [line.text for line in output.read()] == ["001000000"]
    with (tmp_path / "a.1.log").open("ab") as file:
        file.write(lines(1_000_001, 500_000)[4:])
    # What is passed over begins in the midst of a line.
    count, behind = output.newest(1_000_000, 1 << 20)
    assert count == 500_000 > len(behind)
    assert int(behind[0].text) == 1_500_001 - len(behind)


def test_a_line_without_an_end_comes_in_parts_and_all_of_it(tmp_path: Path) -> None:
    write(tmp_path, "a.1", b"x" * (9 << 20) + b"\ny\n")
    texts = [line.text for line in RunOutput(tmp_path).lines()]
    assert [len(text) for text in texts] == [4 << 20, 4 << 20, 1 << 20, 1]


def mib_taken(code: str, place: Path) -> int:
    """Return how much memory a new process takes at most, beyond its start, to run this code on a directory."""
    head = "import resource, sys; from pathlib import Path; from workers.task_output import RunOutput\n"
    head += "place, before = Path(sys.argv[1]), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
    tail = "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    command = [sys.executable, "-c", head + code + tail, str(place)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_reading_a_log_of_a_quarter_of_a_gigabyte_takes_a_few_megabytes(tmp_path: Path) -> None:
    with (tmp_path / "a.1.log").open("wb") as file:
        for _ in range(256):
            file.write((b"%01023d\n" % 7) * 1024)
    code = (
        "assert RunOutput(place).newest(2000, 4 << 20)[0] == 262144\n"
        "assert sum(1 for _ in RunOutput(place).lines()) == 262144\n"
    )
    assert mib_taken(code, tmp_path) < 64


def test_the_newest_lines_of_many_logs_are_read_in_bounded_memory_and_none_between_them_is_missing(
    tmp_path: Path,
) -> None:
    for number in range(40):
        write(tmp_path, f"t[{number}].1", (b"%0127d\n" % number) * 32768, (0, 1.0), (4190208, 2.0 + number))
    write(tmp_path, "quiet.1", b"old\nnew\n", (0, 0.5), (4, 99.0))
    code = (
        "count, lines = RunOutput(place).newest(2000, 4 << 20)\n"
        "assert count == 40 * 32768 + 2 and [line.text for line in lines[-2:]] == ['39'.zfill(127), 'new']\n"
        "assert len(lines) > 500 and 'old' not in {line.text for line in lines}\n"
    )
    assert mib_taken(code, tmp_path) < 16


def test_what_was_passed_over_lies_before_what_the_newest_lines_are_and_a_later_look_goes_on(tmp_path: Path) -> None:
    write(tmp_path, "loud.1", b"".join(b"%09d\n" % number for number in range(50_000)), (0, 1.0), (400_000, 3.0))
    write(tmp_path, "quiet.1", b"a\nb\n", (0, 0.5), (2, 4.0))
    output = RunOutput(tmp_path)
    count, lines = output.newest(2000, 1)
    assert (count, lines[-1].text, len(lines)) == (50_002, "b", 2000)
    count, lines = output.newest(2000, 1)
    assert (count, lines) == (0, [])
    write(tmp_path, "third.1", b"c\n", (0, 2.0))
    assert output.newest(2000, 1) == (1, [(2.0, "third", 1, "c")])


@pytest.mark.parametrize("is_packed", [False, True])
def test_a_run_has_more_logs_than_a_process_may_open_files_and_each_line_is_read(
    tmp_path: Path, *, is_packed: bool
) -> None:
    for number in range(100):
        text = b"".join(b"%d %0100d\n" % (number, line) for line in range(2000))
        write(tmp_path, f"t[{number}].1", text, *((20_000 * place, 1.0 + place) for place in range(11)))
    if is_packed:
        for name in os.listdir(tmp_path):
            _compress(tmp_path / name)
    code = (
        "import resource, sys; from pathlib import Path; from workers.task_output import RunOutput\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
        "lines = list(RunOutput(Path(sys.argv[1])).lines())\n"
        "assert len(lines) == len(set(each.task_id + each.text for each in lines)) == 200_000\n"
        "assert [each.time_s for each in lines] == sorted(each.time_s for each in lines)\n"
        "assert len(set(each.time_s for each in lines)) > 10"
    )
    environ = os.environ | WITHOUT_COVERAGE
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environ)
    assert (done.returncode, done.stderr) == (0, "")


def test_that_no_more_files_may_be_opened_is_told_and_not_taken_for_no_output(tmp_path: Path) -> None:
    write(tmp_path / "1", "a.1", b"x\n", (0, 1.0))
    code = (
        "import os, resource, sys; from pathlib import Path; from workers.segments import LogUnreadable\n"
        "from workers.task_output import RunOutput, attempts_of\n"
        "run_dir = Path(sys.argv[1]); output, known = RunOutput(run_dir / '1'), RunOutput(run_dir / '1')\n"
        "output.read(); known._find()\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir('/proc/self/fd')) - 1,) * 2)\n"
        "for read in (known.read, output.read, lambda: list(known.lines()), lambda: attempts_of(run_dir)):\n"
        "    try: print('read', read())\n"
        "    except LogUnreadable as error: print(str(error).rpartition(': ')[2])"
    )
    environ = os.environ | WITHOUT_COVERAGE
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, env=environ)
    assert done.stdout.splitlines() == ["Too many open files"] * 4, done.stderr
