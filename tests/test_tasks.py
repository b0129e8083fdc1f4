"""What a task's process sees and says: commands, callables, outputs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workers.dag import Dag, Task
from workers.runner import RunInfo, run_dag
from workers.tasks import MAX_OUTPUTS_BYTES, BadOutputs, as_outputs, read_outputs

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run one task, `a`, in `tmp_path` and return its result."""

    def run_one(**fields: Any) -> dict[str, Any]:
        given = {
            "params": fields.pop("given", {}),
            "run": fields.pop("info", RunInfo("r1", "s1", "2026-11-23T15:05:00Z")),
        }
        log_limit = fields.pop("log_limit", 1 << 20)
        declared = fields.pop("declared", {})
        dag = Dag(id="d", tasks=(Task(id="a", **fields),), params=declared, env={"GREETING": "hello"})
        ended = run_dag(dag, project=tmp_path, logs_dir=tmp_path / "runs", log_limit=log_limit, **given)
        result: dict[str, Any] = ended["tasks"]["a"]
        return result

    return run_one


@pytest.fixture
def log(tmp_path: Path) -> Callable[[], bytes]:
    return lambda: (tmp_path / "runs/r1/1/a.1.log").read_bytes()


def _jobs(tmp_path: Path, name: str, text: str) -> None:
    """Write a module under a name of its own: isolate: false keeps it in this process."""
    (tmp_path / f"{name}.py").write_text(text)


def test_a_command_sees_its_run_and_little_else(run: Run, log: Callable[[], bytes], monkeypatch: Any) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/run/x")
    monkeypatch.setenv("LC_TIME", "C")
    given = {"in-region": "eu", "n": 3, "deep": {"a": [1]}}
    result = run(run="env -0", env={"OWN": "${params.n} of ${run.id}"}, declared=dict.fromkeys(given), given=given)
    assert result["status"] == "success"
    env = dict(entry.split("=", 1) for entry in log().decode().split("\0") if entry)
    expected = {
        "RUN_ID": "r1",
        "SCHEDULE_ID": "s1",
        "DAG_ID": "d",
        "FIRE_TIME": "2026-11-23T15:05:00Z",
        "ATTEMPT": "1",
        "TASK_ID": "a",
        "TASK_ATTEMPT": "1",
        "PARAM_IN_REGION": "eu",
        "PARAM_N": "3",
        "PARAM_DEEP": '{"a":[1]}',
        "GREETING": "hello",
        "OWN": "3 of r1",
        "LC_TIME": "C",
        "PATH": os.environ["PATH"],
    }
    assert {name: env.get(name) for name in expected} == expected
    assert env["TICKPOOL_RUN"].startswith("r1/1/")
    assert env["TASK_OUTPUT"].startswith(env["RUN_DIR"])
    assert "NOTIFY_SOCKET" not in env
    assert "PYTHONPATH" not in env


def test_values_reach_a_shell_line_as_one_word_and_are_never_code(run: Run, log: Callable[[], bytes]) -> None:
    value = "a b; touch pwned; $(touch pwned) '\"`"
    assert run(run="printf '<%s>' ${params.x}", declared={"x": ""}, given={"x": value})["status"] == "success"
    assert log().decode() == f"<{value}>"


def test_a_list_is_argv_with_its_references_replaced(run: Run, log: Callable[[], bytes]) -> None:
    run(run=("printf", "<%s>", "${params.x}", "-${run.fire_date}-", "$HOME"), declared={"x": "a  b"})
    assert log() == b"<a  b><-2026-11-23-><$HOME>"


def test_a_command_runs_in_the_project_or_its_own_directory(run: Run, tmp_path: Path, log: Callable[[], bytes]) -> None:
    (tmp_path / "sub").mkdir()
    run(run="pwd", cwd="sub")
    assert log() == f"{tmp_path}/sub\n".encode()
    run(run="pwd")
    assert log() == f"{tmp_path}\n".encode()
    gone = run(run="pwd", cwd="gone")
    assert gone["reason"] == f"cannot enter the working directory `{tmp_path}/gone`: No such file or directory"


@pytest.mark.parametrize(
    ("command", "code", "number", "reason"),
    [
        ("exit 3", 3, None, "exit code 3"),
        ("kill -9 $$", None, 9, "killed by SIGKILL"),
        ("kill -TERM $$", None, 15, "killed by SIGTERM"),
        ("no-such-program-here", 127, None, "exit code 127"),
        (("no-such-program-here",), 127, None, "`no-such-program-here`: command not found"),
    ],
)
def test_how_a_command_failed_is_told(run: Run, command: Any, code: int, number: int, reason: str) -> None:
    result = run(run=command)
    told = {key: result[key] for key in ("status", "exit_code", "signal", "reason")}
    assert told == {"status": "failed", "exit_code": code, "signal": number, "reason": reason}


def test_output_is_kept_byte_for_byte(run: Run, log: Callable[[], bytes], tmp_path: Path) -> None:
    data = bytes(range(256)) * 2000
    (tmp_path / "data").write_bytes(data)
    run(run="cat data; echo err >&2")
    assert log() == data + b"err\n"


def test_a_silent_task_leaves_no_log(run: Run, tmp_path: Path) -> None:
    run(run=("true",))
    assert os.listdir(tmp_path / "runs/r1/1") == []


def test_a_flood_of_output_is_bounded(run: Run, log: Callable[[], bytes]) -> None:
    result = run(run="head -c 50000000 /dev/zero; printf end", log_limit=100_000)
    assert result["status"] == "success"
    assert len(log()) < 200_000
    assert b"bytes left out]" in log()
    assert log().endswith(b"\0end")


def test_a_grandchild_that_holds_the_output_does_not_hold_the_task(run: Run, log: Callable[[], bytes]) -> None:
    result = run(run="setsid sleep 60 & echo started")
    assert result["duration_s"] < 30
    assert log() == b"started\n"


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("a=1\nb = x=y \n\nurl=http://x/?q=1\r\n", {"a": "1", "b": " x=y ", "url": "http://x/?q=1"}),
        (' {"rows": 3, "deep": {"a": [null]}}\n', {"rows": 3, "deep": {"a": [None]}}),
        ("", {}),
    ],
)
def test_a_task_output_file_becomes_outputs(tmp_path: Path, text: str, outputs: dict[str, Any]) -> None:
    (tmp_path / "out").write_text(text, newline="")
    assert read_outputs(f"{tmp_path}/out") == outputs
    assert read_outputs(f"{tmp_path}/none") == {}


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"novalue\n", "line 1 of TASK_OUTPUT is not `key=value`"),
        (b"a=1\n=2\n", "line 2"),
        (b'{"a": ', "not one JSON object"),
        (b"a=\xff", "cannot be read"),
        (b"a=" + b"x" * MAX_OUTPUTS_BYTES, "more than 32768 bytes"),
        (b"[" * 100_000, "more than"),
    ],
)
def test_bad_outputs_fail_the_task_with_the_reason(run: Run, tmp_path: Path, data: bytes, why: str) -> None:
    (tmp_path / "data").write_bytes(data)
    result = run(run='cat data > "$TASK_OUTPUT"')
    assert result["status"] == "failed"
    assert result["exit_code"] == 0
    assert why in result["reason"]


@pytest.mark.parametrize(
    ("value", "outputs"), [(None, {}), ({"a": 1}, {"a": 1}), ([1, "x"], {"result": [1, "x"]}), (0, {"result": 0})]
)
def test_a_return_value_becomes_outputs(value: object, outputs: dict[str, Any]) -> None:
    assert as_outputs(value) == outputs


@pytest.mark.parametrize("value", [object(), {"a": {object()}}, {(1, 2): 3}, "x" * MAX_OUTPUTS_BYTES, "é" * 6000])
def test_a_return_value_that_is_no_small_json_is_refused(value: object) -> None:
    with pytest.raises(BadOutputs):
        as_outputs(value)


def test_outputs_too_deep_to_be_read_fail_their_task_and_not_the_run(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOKEN", "what is masked is read to its depth")
    (tmp_path / "deep.json").write_text('{"a": ' + "[" * 900 + '"é"' + "]" * 900 + "}")
    result = run(run='cp deep.json "$TASK_OUTPUT"', secrets=("TOKEN",))
    assert (result["status"], result["reason"]) == (
        "failed",
        "bad outputs: lists and mappings are more than 100 levels deep",
    )
    _jobs(tmp_path, "jobs_deep", "def main(n):\n    return [main(n - 1)] if n else {}\n")
    assert run(call="jobs_deep:main", args={"n": 98})["status"] == "success"
    assert run(call="jobs_deep:main", args={"n": 100})["status"] == "failed"


@pytest.mark.parametrize("isolate", [True, False])
def test_a_callable_gets_json_and_gives_json(run: Run, tmp_path: Path, isolate: bool) -> None:
    _jobs(tmp_path, f"jobs_json_{isolate}", "def main(rows, deep):\n    return {'n': len(rows), 'deep': deep}\n")
    result = run(
        call=f"jobs_json_{isolate}:main",
        args={"rows": "${params.rows}", "deep": {"x": ["${run.id}"]}},
        declared={"rows": [1, 2, 3]},
        isolate=isolate,
    )
    assert (result["status"], result["reason"]) == ("success", None)
    assert result["outputs"] == {"n": 3, "deep": {"x": ["r1"]}}


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize(
    ("body", "code", "reason", "logged"),
    [
        ("raise ValueError('bad\\nrow')", 1, "ValueError: bad row", "Traceback"),
        ("raise KeyError", 1, "KeyError", "Traceback"),
        ("import sys; sys.exit(7)", 7, "SystemExit: 7", ""),
        ("import sys; sys.exit('no rows')", 1, "SystemExit: no rows", "no rows\n"),
        ("return object()", 1, "bad outputs: the return value cannot be written as JSON", "object"),
        ("return main()", 1, "RecursionError", "Traceback"),
    ],
)
def test_how_a_callable_failed_is_told(
    run: Run, tmp_path: Path, isolate: bool, body: str, code: int, reason: str, logged: str
) -> None:
    name = f"jobs_fail_{isolate}_{abs(hash(body))}"
    _jobs(tmp_path, name, f"def main():\n    {body}\n")
    result = run(call=f"{name}:main", isolate=isolate)
    assert (result["status"], result["exit_code"]) == ("failed", code)
    assert result["reason"].startswith(reason)
    path = tmp_path / "runs/r1/1/a.1.log"
    assert logged in (path.read_text() if path.exists() else "")


@pytest.mark.parametrize("isolate", [True, False])
@pytest.mark.parametrize(
    ("text", "attribute", "why"),
    [
        (None, "main", "ModuleNotFoundError: No module named"),
        ("def main(:\n", "main", "SyntaxError"),
        ("raise RuntimeError('at import')\n", "main", "RuntimeError: at import"),
        ("main = 3\n", "main", "has no callable `main`"),
        ("class A:\n    pass\n", "A.gone", "has no callable `A.gone`"),
    ],
)
def test_a_callable_that_cannot_be_imported_is_its_tasks_failure(
    run: Run, tmp_path: Path, isolate: bool, text: str | None, attribute: str, why: str
) -> None:
    name = f"jobs_import_{isolate}_{abs(hash(text))}"
    if text is not None:
        _jobs(tmp_path, name, text)
    result = run(call=f"{name}:{attribute}", isolate=isolate)
    assert result["status"] == "failed"
    assert result["reason"].startswith(f"cannot import `{name}:{attribute}`: ")
    assert why in result["reason"]


def test_an_isolated_callable_has_a_process_of_its_own(run: Run, tmp_path: Path, log: Callable[[], bytes]) -> None:
    text = """
import logging, os, subprocess, sys, threading
def main():
    os.environ["LEAK"] = sys.argv[0] = "x"
    print("printed")
    logging.warning("logged")
    subprocess.run(["sh", "-c", "echo from $TASK_ID"], check=True)
    threading.Timer(0.05, lambda: os.write(1, b"thread\\n")).start()
    return {"pid": os.getpid(), "sid": os.getsid(0), "cwd": os.getcwd(), "stdin": sys.stdin.read(),
            "id": os.environ["RUN_ID"], "leaked": "NOTIFY_SOCKET" in os.environ}
"""
    _jobs(tmp_path, "jobs_isolated", text)
    result = run(call="jobs_isolated:main")
    out = result["outputs"]
    assert out["pid"] == out["sid"] != os.getpid()
    assert (out["cwd"], out["stdin"], out["id"], out["leaked"]) == (str(tmp_path), "", "r1", False)
    assert "LEAK" not in os.environ
    assert b"printed\n" in log()
    assert b"from a\n" in log()
    assert log().endswith(b"thread\n")
    assert "jobs_isolated" not in sys.modules
    assert str(tmp_path) not in sys.path


def test_a_callable_that_dies_or_slips_away_is_told(run: Run, tmp_path: Path) -> None:
    text = "import os, signal\ndef die(): os.kill(os.getpid(), signal.SIGSEGV)\ndef slip(): os._exit(0)\n"
    _jobs(tmp_path, "jobs_die", text)
    died = run(call="jobs_die:die")
    assert (died["status"], died["signal"], died["reason"]) == ("failed", signal.SIGSEGV, "killed by SIGSEGV")
    slipped = run(call="jobs_die:slip")
    assert (slipped["status"], slipped["exit_code"]) == ("failed", 0)
    assert slipped["reason"].startswith("it ended without returning")


def test_a_callable_in_the_worker_prints_into_the_log_and_may_exit(
    run: Run, tmp_path: Path, log: Callable[[], bytes], capsys: Any
) -> None:
    text = "import sys\ndef main():\n    print('café')\n    print('err', file=sys.stderr)\n    sys.exit()\n"
    _jobs(tmp_path, "jobs_here", text)
    assert run(call="jobs_here:main", isolate=False)["status"] == "success"
    assert log() == "café\nerr\n".encode()
    assert capsys.readouterr() == ("", "")
    assert sys.modules.pop("jobs_here")


def test_a_silent_callable_in_the_worker_touches_no_disk(run: Run, tmp_path: Path) -> None:
    assert run(call="json:dumps", args={"obj": [1]}, isolate=False)["outputs"] == {"result": "[1]"}
    assert not (tmp_path / "runs").exists()


def test_a_changed_module_is_seen_by_the_next_run(tmp_path: Path) -> None:
    def run_twice() -> list[Any]:
        tasks = tuple(Task(id=f"t{n}", call="jobs_changed:main") for n in range(3))
        dag = Dag(id="d", tasks=tasks, max_parallel_tasks=1)
        ended = run_dag(dag, project=tmp_path, logs_dir=tmp_path / "runs")
        return [ended["tasks"][task.id]["outputs"].get("result") for task in tasks]

    _jobs(tmp_path, "jobs_changed", "import os\nPID = os.getpid()\ndef main(): return PID\n")
    first, second, third = run_twice()
    assert first != os.getpid()
    # From its second use on, the module is imported once, by the process that forks.
    assert second == third == os.getpid()
    _jobs(tmp_path, "jobs_changed", "def main(): return 'the new code'\n")
    assert run_twice() == ["the new code"] * 3


def test_a_module_that_starts_a_thread_is_never_imported_by_the_forking_process(tmp_path: Path) -> None:
    text = """
import os, threading
threading.Thread(target=threading.Event().wait, daemon=True).start()
PID = os.getpid()
def main(): return PID
"""
    _jobs(tmp_path, "jobs_thread", text)
    tasks = tuple(Task(id=f"t{n}", call="jobs_thread:main") for n in range(3))
    ended = run_dag(Dag(id="d", tasks=tasks, max_parallel_tasks=1), project=tmp_path, logs_dir=tmp_path / "runs")
    assert len({json.dumps(each["outputs"]) for each in ended["tasks"].values()}) == 3
    assert all(each["status"] == "success" for each in ended["tasks"].values())
