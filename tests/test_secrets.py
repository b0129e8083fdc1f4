"""Secrets in real runs: who gets them, and that nothing tells them."""

from __future__ import annotations

import base64
import json
import os
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from service import Service

from workers.dag import Dag, Retries, Task
from workers.masking import forms_of
from workers.runner import RunInfo, run_dag
from workers.units import Duration

WaitFor = Callable[..., None]

PASSWORD = "pa$$ 'word' \"\\ é+/"
TOKEN = "tok-3f9c17d2e8b04a65"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run tasks with DB_PASSWORD and API_TOKEN in the environment; return the result with its `events`."""
    monkeypatch.setenv("DB_PASSWORD", PASSWORD)
    monkeypatch.setenv("API_TOKEN", TOKEN)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run_tasks(*tasks: Task, params: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
        of_dag = {name: options.pop(name) for name in list(options) if name in Dag.__struct_fields__}
        dag = Dag(id="d", tasks=tasks, params=params or {}, **of_dag)
        events: list[dict[str, Any]] = []
        options = {"project": tmp_path, "logs_dir": tmp_path / "runs", "run": RunInfo("r"), **options}
        return {**run_dag(dag, record=events.append, **options), "events": events}

    return run_tasks


def _task(name: str, script: str, **fields: Any) -> Task:
    return Task(id=name, run=textwrap.dedent(script), **fields)


def _log(root: Path, task: str) -> str:
    return (root / f"runs/r/1/{task}.1.log").read_text("utf-8")


def _shows(data: bytes | str, *values: str) -> list[bytes]:
    """Return the forms of these values that the data holds."""
    data = data.encode() if isinstance(data, str) else data
    return [form for value in values for form in forms_of(value.encode()) if form in data]


def _files_that_show(root: Path, *values: str, but: tuple[str, ...] = ()) -> list[str]:
    """Return the files below `root` that hold a form of a value, without those whose name ends so."""
    files = [file for file in root.rglob("*") if file.is_file() and not file.name.endswith(but)]
    return [str(file) for file in files if _shows(file.read_bytes(), *values)]


# --- who gets them ------------------------------------------------------------------------------------------------


def test_a_secret_reaches_only_the_tasks_that_name_it(run: Any, tmp_path: Path) -> None:
    (tmp_path / "look.py").write_text("import os\n\ndef env():\n    return {'has': sorted(os.environ)}\n")
    names = {"secrets": ("DB_PASSWORD",)}
    shell = 'echo "has=$(env | cut -d= -f1 | sort | tr "\\n" ,)" > "$TASK_OUTPUT"; test "$DB_PASSWORD" = "$(cat want)"'
    (tmp_path / "want").write_text(PASSWORD)
    ended = run(
        _task("given", shell, **names),
        _task("not", shell, continue_on_failure=True),
        Task(id="call", call="look:env", **names),
        Task(id="not-call", call="look:env"),
        secrets=("DB_PASSWORD", "API_TOKEN"),
    )
    assert ended["status"] == "success"
    assert ended["tasks"]["not"]["status"] == "failed"
    for name in ("given", "call"):
        has = ended["tasks"][name]["outputs"]["has"]
        assert "DB_PASSWORD" in has
        assert "API_TOKEN" not in has
    assert not any("DB_PASSWORD" in task for task in ended["tasks"]["not-call"]["outputs"]["has"])


def test_a_forked_callable_cannot_look_up_what_its_process_was_born_with(service: Service, wait_for: WaitFor) -> None:
    look = """
        import os, sys
        def look():
            with open("/proc/self/environ", "rb") as file:
                born = file.read()
            here = b"\\0".join(b"=".join(item) for item in os.environb.items())
            for name in (b"DB_PASSWORD", b"API_TOKEN", b"CREDENTIALS_DIRECTORY", b"SOME_FILE"):
                print(name.decode(), name in born, name in here)
            print("PATH", os.environ["PATH"] != "", os.getenv("RUN_ID"))
            sys.exit(os.system('test -n "$PATH" && test -n "$RUN_ID"'))
    """
    (service.root / "look.py").write_text(textwrap.dedent(look))
    task = {"id": "a", "call": "look:look", "secrets": "DB_PASSWORD"}
    shell = {"id": "b", "run": "tr '\\0' '\\n' < /proc/self/environ; env", "secrets": "DB_PASSWORD"}
    _write_dag(service, "d", [task, shell], secrets=["DB_PASSWORD"])
    environ = {"DB_PASSWORD": PASSWORD, "API_TOKEN": TOKEN, "CREDENTIALS_DIRECTORY": "/x", "SOME_FILE": "/y"}
    service.start(**environ)
    run_id = service.ask("dags/d.yaml")
    wait_for(lambda: service.has_ended(run_id), 60)
    assert service.story(run_id)[-1] == "run_finished 1 success"
    said = (service.root / f"logs/runs/{run_id}/1/a.1.log").read_text()
    assert said.splitlines() == [
        "DB_PASSWORD False True",
        "API_TOKEN False False",
        "CREDENTIALS_DIRECTORY False False",
        "SOME_FILE False False",
        f"PATH True {run_id}",
    ]
    said = (service.root / f"logs/runs/{run_id}/1/b.1.log").read_text()
    assert said.count("DB_PASSWORD=***\n") == 2
    assert not any(name in said for name in ("API_TOKEN", "CREDENTIALS_DIRECTORY", "SOME_FILE"))


def test_a_missing_secret_fails_its_task_and_no_other(run: Any, tmp_path: Path) -> None:
    ended = run(
        _task("needs", "exit 0", secrets=("NO_SUCH",), retries=Retries(max=2, delay=Duration(0))),
        _task("after", "exit 0", needs=("needs",)),
        _task("other", "exit 0", secrets=("API_TOKEN",)),
        secrets=("NO_SUCH", "API_TOKEN"),
    )
    assert {name: task["status"] for name, task in ended["tasks"].items()} == {
        "needs": "failed",
        "after": "upstream_failed",
        "other": "success",
    }
    why = "secret `NO_SUCH` is not there; looked for $CREDENTIALS_DIRECTORY/NO_SUCH, the file that NO_SUCH_FILE names,"
    assert ended["reason"].startswith(f"task `needs` failed: {why}")
    assert ended["tasks"]["needs"]["attempts"] == 3
    finished = [e for e in ended["events"] if e["event"] == "task_finished" and e["task_id"] == "needs"]
    assert len(finished) == 3
    assert all(event["reason"].startswith(why) for event in finished)


def test_a_retry_finds_a_secret_that_has_come_meanwhile(
    run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATE_FILE", str(tmp_path / "late"))
    ended = run(
        _task("a", f"echo {TOKEN}-late > late", retries=Retries()),
        _task("b", "echo got $LATE", secrets=("LATE",), needs=("a",)),
        secrets=("LATE",),
    )
    assert ended["status"] == "success"
    assert _log(tmp_path, "b") == "got ***\n"


# --- that nothing tells them --------------------------------------------------------------------------------------


def test_no_log_event_or_result_shows_what_a_command_says(run: Any, tmp_path: Path) -> None:
    script = """
        set -x
        printf '%s' "$DB_PASSWORD" | base64; printf 'user:%s' "$DB_PASSWORD" | base64 -w0; echo
        printf '%s' "$DB_PASSWORD" >&2; : "$DB_PASSWORD"
        printf 'pass %s here\\n' "$DB_PASSWORD" "$DB_PASSWORD"
        printf '{"p": "%s", "n": 1}' "$(printf '%s' "$DB_PASSWORD" | sed 's/[\\\\"]/\\\\&/g')" > "$TASK_OUTPUT"
    """
    ended = run(
        _task("a", script, secrets=("DB_PASSWORD",)),
        _task("b", "echo got '${tasks.a.outputs.p}' $PARAM_P", needs=("a",)),
        Task(id="c", run=("/no/such/${tasks.a.outputs.p}",), needs=("a",)),
        params={"p": "harmless"},
        secrets=("DB_PASSWORD",),
    )
    assert ended["tasks"]["a"]["outputs"] == {"p": "***", "n": 1}
    assert _log(tmp_path, "b") == "got *** harmless\n"
    assert _log(tmp_path, "a").count("pass *** here\n") == 2
    assert not _shows(json.dumps(ended), PASSWORD)
    assert _files_that_show(tmp_path, PASSWORD, but=(".output",)) == []


def test_no_exception_traceback_or_return_value_of_a_callable_shows_them(run: Any, tmp_path: Path) -> None:
    (tmp_path / "leaks.py").write_text(
        textwrap.dedent("""
            import os, sys
            from urllib.parse import quote
            P = os.environ.get("DB_PASSWORD", "")
            def fails(pad=0): raise ValueError("x" * pad + f"cannot reach db://me:{quote(P)}@host, {P!r}")
            def by_key(): return {}[P]
            def lines(): raise ValueError("cannot log in with\\n" + os.environ["PEM"] + "\\nas root")
            def stops(): sys.exit(f"no {P}")
            def returns(): return {"url": f"db://{P}", P: [P, {"deep": P}], "pin": int(os.environ["PIN"])}
            def bad(): return {"x": {P: object()}}
        """)
    )
    os.environ["PIN"], os.environ["PEM"] = "73059184", "-----BEGIN\nMIIBVgIBADANBgkq\n-----END"
    names = ("DB_PASSWORD", "PIN", "PEM")
    calls = ["fails", "by_key", "lines", "stops", "returns", "bad"]
    try:
        ended = run(
            *(Task(id=name, call=f"leaks:{name}", secrets=names) for name in calls),
            # The cut at 2,000 characters falls into the value.
            *(
                Task(id=f"cut{pad}", call="leaks:fails", args={"pad": pad}, secrets=names)
                for pad in range(1940, 1975, 3)
            ),
            secrets=names,
            max_parallel_tasks=2,
        )
    finally:
        del os.environ["PIN"], os.environ["PEM"]
    tasks = ended["tasks"]
    assert tasks["fails"]["reason"] == "ValueError: cannot reach db://me:***@host, '***'"
    assert tasks["by_key"]["reason"] in ("KeyError: '***'", 'KeyError: "***"')
    assert tasks["lines"]["reason"] == "ValueError: cannot log in with *** as root"
    assert tasks["stops"]["reason"] == "SystemExit: no ***"
    assert tasks["returns"]["outputs"] == {"url": "db://***", "***": ["***", {"deep": "***"}], "pin": "***"}
    assert "KeyError" in _log(tmp_path, "by_key")
    assert not _shows(json.dumps(ended), PASSWORD, "73059184", "MIIBVgIBADANBgkq")
    for pad in range(1940, 1975, 3):
        rest = tasks[f"cut{pad}"]["reason"].partition("x")[2].lstrip("x")
        assert "pa$" not in rest
        assert "pa%24" not in rest
    assert _files_that_show(tmp_path, PASSWORD, "73059184", "MIIBVgIBADANBgkq", but=(".py", ".pyc", ".output")) == []


def test_a_callable_in_the_worker_is_masked_too(run: Any, tmp_path: Path) -> None:
    (tmp_path / "inside.py").write_text(
        "import os\n\ndef f():\n    print(os.environ['API_TOKEN'])\n    raise OSError(os.environ['API_TOKEN'])\n"
    )
    ended = run(
        Task(id="a", call="inside:f", isolate=False),
        _task("b", "true", secrets=("API_TOKEN",)),
        secrets=("API_TOKEN",),
    )
    sys.modules.pop("inside")
    assert ended["tasks"]["a"]["reason"] == "OSError: ***"
    assert _log(tmp_path, "a").startswith("***\nTraceback")
    assert not _shows(json.dumps(ended), TOKEN)
    assert _files_that_show(tmp_path, TOKEN) == []


def test_hooks_get_secrets_and_no_hook_is_told_one(run: Any, tmp_path: Path) -> None:
    ended = run(
        Task(id="a", run=("sh", "-c", "echo $API_TOKEN; exit 3"), secrets=("API_TOKEN",)),
        Task(id="b", call="hook_b:f", secrets=("API_TOKEN",)),
        on_failure=(_task("tell", 'echo "$RUN_REASON"; test -n "$API_TOKEN"', secrets=("API_TOKEN",)),),
        on_exit=(_task("bye", "echo ${API_TOKEN-none}; test -z $NOT", secrets=("NOT",)),),
        secrets=("API_TOKEN", "NOT"),
    )
    assert ended["hooks"]["tell"]["status"] == "success"
    assert ended["hooks"]["bye"]["reason"].startswith("secret `NOT` is not there")
    assert "failed" in _log(tmp_path, "tell")
    assert _files_that_show(tmp_path, TOKEN) == []


def test_a_secret_printed_ten_thousand_times_is_never_in_the_log_whatever_is_cut(run: Any, tmp_path: Path) -> None:
    script = """
        import base64, os, sys
        token = os.environ["API_TOKEN"].encode()
        for number in range(10_000):
            coded = base64.b64encode(b"x" * (number % 3) + token)
            line = b"%020d " % number + (token if number % 2 else coded)
            os.write(1, line[: number % 40])
            os.write(1, line[number % 40 :] + b"\\n" * (number % 3))
    """
    limit = 64 * 1024 + 7
    task = Task(id="a", run=(sys.executable, "-c", textwrap.dedent(script)), secrets=("API_TOKEN",))
    ended = run(task, secrets=("API_TOKEN",), log_limit=limit)
    assert ended["status"] == "success"
    log = (tmp_path / "runs/r/1/a.1.log").read_bytes()
    assert b"bytes left out]" in log
    assert log.count(b"***") > 5_000
    assert not _shows(log, TOKEN)
    assert not any(TOKEN.encode()[at : at + 6] in log for at in range(len(TOKEN) - 6))


def test_output_that_ends_like_the_beginning_of_a_secret_is_whole(run: Any, tmp_path: Path) -> None:
    assert run(_task("a", "printf 'a tok-'", secrets=("API_TOKEN",)), secrets=("API_TOKEN",))["status"] == "success"
    assert _log(tmp_path, "a") == "a tok-"


@pytest.mark.parametrize("end", ["", "\n"])
def test_every_limit_of_a_log_falls_beside_a_secret_never_into_it(run: Any, tmp_path: Path, end: str) -> None:
    for limit in range(8, 24):
        ended = run(
            _task("a", f"printf 'head %s tail{end}' $API_TOKEN", secrets=("API_TOKEN",)),
            secrets=("API_TOKEN",),
            log_limit=limit,
            run=RunInfo(f"r{limit}"),
        )
        assert ended["status"] == "success"
        said = (tmp_path / f"runs/r{limit}/1/a.1.log").read_text()
        assert "tok" not in said
        assert said.replace("\n", "") == "head *** tail"


def test_what_a_task_says_without_a_newline_is_in_its_log_at_once(run: Any, tmp_path: Path, wait_for: WaitFor) -> None:
    log = tmp_path / "runs/r/1/a.1.log"
    script = f"printf 'Password: 10 %%'; until test \"$(cat {log})\" = 'Password: 10 %'; do sleep 0.01; done; echo done"
    ended = run(
        _task("a", script, secrets=("API_TOKEN",), timeout=Duration(seconds=30)),
        secrets=("API_TOKEN",),
    )
    assert ended["status"] == "success"


def test_an_error_that_ends_a_run_is_raised_without_them(run: Any, tmp_path: Path) -> None:
    def refuse(event: dict[str, Any]) -> None:
        raise RuntimeError(f"cannot record with {base64.b64encode(TOKEN.encode()).decode()}")

    dag = Dag(id="d", tasks=(_task("a", "true", secrets=("API_TOKEN",)),), secrets=("API_TOKEN",))
    with pytest.raises(Exception, match=r"^RuntimeError: cannot record with \*\*\*") as caught:
        run_dag(dag, project=tmp_path, record=refuse)
    assert TOKEN not in str(caught.value)


# --- real processes -----------------------------------------------------------------------------------------------


def _write_dag(service: Service, name: str, tasks: list[dict[str, Any]], **fields: Any) -> str:
    (service.root / "dags" / f"{name}.yaml").write_text(json.dumps({"id": name, "tasks": tasks, **fields}), "ascii")
    return f"dags/{name}.yaml"


def test_two_dags_of_a_service_have_each_its_own_secrets(service: Service, wait_for: WaitFor) -> None:
    place = service.root / "credentials"
    place.mkdir()
    (place / "ONE").write_text(f"{TOKEN}-one\n")
    (service.root / "two").write_text(f"{PASSWORD}-two\n")
    script = (
        'echo "ONE=${ONE-none} TWO=${TWO-none} API_TOKEN=${API_TOKEN-none} $CREDENTIALS_DIRECTORY"; echo "$ONE$TWO" >&2'
    )
    fail = {"id": "f", "run": "echo x=$ONE$TWO > $TASK_OUTPUT; exit 3", "retries": {"max": 1}, "needs": "t"}
    for name in ("ONE", "TWO"):
        tasks = [{"id": "t", "run": script, "secrets": name}, {**fail, "secrets": name}]
        tell = [{"run": "echo $RUN_REASON $ONE$TWO", "secrets": name}]
        _write_dag(service, name.lower(), tasks, secrets=name, on_failure=tell)
    environ = {
        "CREDENTIALS_DIRECTORY": str(place),
        "TWO_FILE": str(service.root / "two"),
        "API_TOKEN": "api-token-value",
    }
    service.start(**environ)
    runs = {name: service.ask(f"dags/{name.lower()}.yaml") for name in ("ONE", "TWO")}
    wait_for(lambda: service.has_ended(*runs.values()), 60)
    assert _files_that_show(service.root, TOKEN, PASSWORD, "api-token-value", but=("ONE", "two", ".output")) == []
    for name, run_id in runs.items():
        log = (service.root / f"logs/runs/{run_id}/1/t.1.log").read_text()
        said = {"ONE": "none", "TWO": "none", name: "***"}
        assert log == f"ONE={said['ONE']} TWO={said['TWO']} API_TOKEN=none \n***\n"
        assert (service.root / f"logs/runs/{run_id}/1/on_failure.1.log").read_text().endswith(" ***\n")
        assert service.events("run_finished", run_id)[0]["reason"].startswith("task `f` failed: exit code 3")


def test_a_missing_secret_is_on_record_and_the_next_run_finds_it(service: Service, wait_for: WaitFor) -> None:
    dag = _write_dag(service, "d", [{"id": "t", "run": "true", "secrets": "LATE"}], secrets="LATE")
    (service.root / "credentials").mkdir()
    service.start(CREDENTIALS_DIRECTORY=str(service.root / "credentials"))
    first = service.ask(dag)
    wait_for(lambda: service.has_ended(first), 60)
    assert "secret `LATE` is not there" in service.events("run_finished", first)[0]["reason"]
    (service.root / "credentials" / "LATE").write_text("now it is")
    second = service.ask(dag)
    wait_for(lambda: service.has_ended(second), 60)
    assert service.story(second)[-1] == "run_finished 1 success"


@pytest.mark.parametrize("words", [("-m", "workers"), ("-m", "scheduler.cli", "run")], ids=["workers", "tickpool"])
@pytest.mark.parametrize("as_json", [True, False], ids=["json", "text"])
def test_a_run_by_hand_prints_and_records_none(service: Service, words: tuple[str, ...], *, as_json: bool) -> None:
    (service.root / "leak.py").write_text(
        "import os\n\ndef f(of):\n    raise ValueError(f'{of} {os.environ[\"API_TOKEN\"]}')\n"
    )
    tasks = [
        {"id": "a", "call": "leak:f", "args": {"of": "${params.x}"}, "secrets": "API_TOKEN", "retries": {"max": 1}},
        {"id": "b", "run": "echo p=$API_TOKEN > $TASK_OUTPUT; echo $API_TOKEN", "secrets": "API_TOKEN"},
    ]
    dag = _write_dag(service, "d", tasks, secrets="API_TOKEN", params={"x": "", "n": 1})
    options = ["--json"] if as_json else []
    process = service.launch(*words, dag, "-p", f"x=about {TOKEN}", *options, API_TOKEN=TOKEN)
    assert process.wait(60) == 1
    assert "about *** ***" in service.out()
    assert service.events("run_requested")[0]["params"] == {"x": "about ***"}
    for wrong in (f"n={TOKEN}", f"{TOKEN}=1"):
        assert service.launch(*words, dag, "-p", wrong, *options, API_TOKEN=TOKEN).wait(60) == 2
        assert "***" in service.err()
    assert _files_that_show(service.root, TOKEN, but=(".output",)) == []


def test_a_secret_in_the_wrong_place_is_not_told_by_the_error(service: Service) -> None:
    dag = _write_dag(service, "d", [{"id": "t", "run": "true", "secrets": "API_TOKEN"}], secrets="API_TOKEN")
    process = service.launch("-m", "workers", dag, API_TOKEN_FILE=TOKEN)
    assert process.wait(60) == 1
    assert "the file that API_TOKEN_FILE names does not exist" in service.out()
    assert _files_that_show(service.root, TOKEN) == []
