"""What DAG files may say of the kinds of task, and where what is wrong with them stands."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.dag import load_dag
from workers.errors import InvalidFile

# Each stands on line 4, from column 5, behind a task `a`.
GOOD = [
    "{id: b, http: 'https://localhost/x'}",
    "{id: b, http: {url: '${params.region}', method: POST, json: {a: [1]}, expect: [201, 3xx], timeout: 5s}}",
    "{id: b, http: {url: 'http://h/', headers: {X-A: '${secrets.TOKEN}'}}, secrets: [TOKEN]}",
    "{id: b, wait: {file: 'in/${params.region}.csv', every: 1s}, timeout: 1h}",
    "{id: b, wait: {port: '127.0.0.1:80'}}",
    "{id: b, wait: {port: '[::1]:80'}}",
    "{id: b, wait: {http: 'http://localhost/ready'}}",
    "{id: b, wait: {http: {url: 'http://localhost/ready', expect: 204}}}",
    "{id: b, wait: {time: 06:30, timezone: Europe/Paris}}",
    "{id: b, wait: {time: '2026-11-23T09:00:00Z'}}",
    "{id: b, wait: {delay: 10m}}",
    "{id: b, wait: {run: other, status: [success, failed]}}",
    "{id: b, dag: dags/other.yaml, params: {x: '${params.region}'}, retries: {max: 1}}",
    "{id: b, approval: 'Release ${params.region}?'}",
    "{id: b, approval: {}, timeout: 4h}",
    "{id: b, approval: {message: Release?, default: reject}, timeout: 4h}",
    "{id: b, foreach: [eu, us], max_parallel: 1, run: [echo, '${item}']}",
    "{id: b, foreach: '${tasks.a.outputs.list}', needs: [a], call: 'm:f', args: {x: '${item.name}'}}",
    "{id: b, foreach: [], run: x}",
]
BAD = [
    ("{id: b, run: x, http: 'http://h/'}", "4:21: task `b`: has both `run` and `http`; leave one out"),
    ("{id: b, run: x, params: {}}", "4:21: task `b`: `params` goes with `dag` only"),
    ("{id: b, dag: dags/other.yaml, env: {A: b}}", "4:35: task `b`: `env` goes with `run` and `call` only"),
    ("{id: b, approval: x, retries: {max: 1}}",
     "4:26: task `b`: `retries` goes with `run`, `call`, `http`, `wait` and `dag` only"),
    ("{id: b, http: 'localhost/x'}", "4:19: task `b`: `http`: 'localhost/x' is no address; write `https://host/path`"),
    ("{id: b, http: {url: 'ftp://h/'}}", "4:25: task `b`: `http`: 'ftp://h/' is no address; write `https://host/path`"),
    ("{id: b, http: {}}", "4:19: task `b`: `http.url` is missing"),
    ("{id: b, http: {url: 'http://h/', methd: POST}}",
     "4:38: task `b`: unknown key `http.methd`; did you mean `method`?"),
    ("{id: b, http: {url: 'http://h/', method: post}}",
     '4:46: task `b`: `http.method`: "post" is not one of its values; allowed: DELETE, GET, HEAD, PATCH, POST, PUT'),
    ("{id: b, http: {url: 'http://h/', body: x, json: 1}}",
     "4:47: task `b`: `http`: has both `body` and `json`; leave one out"),
    ("{id: b, http: {url: 'http://h/', expect: [20]}}",
     "4:47: task `b`: `http`: `expect` '20': write a status such as 201, or a class such as 2xx"),
    ("{id: b, http: {url: 'http://h/', headers: {'A B': x}}}",
     "4:48: task `b`: `http`: 'A B' is no name of a header"),
    ('{id: b, http: {url: "http://h/", headers: {A: "x\\r\\nB: y"}}}',
     "4:51: task `b`: `http`: header `A` holds a line break or a NUL"),
    ("{id: b, http: {url: 'http://h/', headers: {A: '${secrets.TOKEN}'}}}",
     "4:51: task `b`: `http`: `secrets.TOKEN`: add `TOKEN` to the task's `secrets`"),
    ("{id: b, run: [x, '${secrets.TOKEN}'], secrets: [TOKEN]}",
     "4:22: task `b`: `run`: `${secrets.TOKEN}` is not a reference here: name `TOKEN` in the task's `secrets`;"
     " it comes as the environment variable `TOKEN`"),
    ("{id: b, wait: {}}",
     "4:19: task `b`: `wait`: needs one of `file`, `port`, `http`, `time`, `delay` and `run`, and has none"),
    ("{id: b, wait: {file: x, port: 'h:1'}}", "4:29: task `b`: `wait`: has both `file` and `port`; leave one out"),
    ("{id: b, wait: {delay: 5m, every: 1s}}",
     "4:31: task `b`: `wait`: `every` goes with `file`, `port` and `http` only"),
    ("{id: b, wait: {file: x, every: 0s}}", "4:36: task `b`: `wait`: `every` must be longer than 0s"),
    ("{id: b, wait: {port: 'h:99999'}}",
     "4:26: task `b`: `wait`: `port`: 'h:99999' is no place to connect to; write `host:port`,"
     " such as `127.0.0.1:5432`"),
    ("{id: b, wait: {time: 25:00}}",
     "4:26: task `b`: `wait`: `time`: '25:00' is no time; write `06:30`, or an ISO 8601 time with its zone"),
    ("{id: b, wait: {time: '9999-11-23T09:00:00Z'}}",
     "4:26: task `b`: `wait`: `time`: '9999-11-23T09:00:00Z' is no time; write `06:30`,"
     " or an ISO 8601 time with its zone"),
    ("{id: b, wait: {time: '2026-11-23T09:00:00'}}",
     "4:26: task `b`: `wait`: `time`: '2026-11-23T09:00:00' is no time; write `06:30`,"
     " or an ISO 8601 time with its zone"),
    ("{id: b, wait: {time: 06:30, timezone: Europe/Pari}}",
     "4:43: task `b`: `wait`: `timezone`: unknown time zone 'Europe/Pari'; write one such as Europe/Paris"),
    ("{id: b, wait: {run: other, status: sucess}}",
     "4:40: task `b`: `wait`: `status`: 'sucess' is no end of a run; did you mean `success`?"),
    ("{id: b, dag: other}",
     "4:18: task `b`: `dag` is 'other'; name a DAG file of the project, such as `dags/load.yaml`"),
    ("{id: b, approval: {default: maybe}}",
     '4:33: task `b`: `approval.default`: "maybe" is not one of its values; allowed: approve, reject'),
    ("{id: b, approval: {default: approve}}",
     "4:24: task `b`: `approval`: `default` is what counts after the task's `timeout`, and it has none"),
    ("{id: b, run: x, max_parallel: 2}",
     "4:21: task `b`: `max_parallel` goes with `foreach` only; the DAG has `max_parallel_tasks`"),
    ("{id: b, run: x, foreach: abc}",
     "4:30: task `b`: `foreach` is 'abc'; write a list, or one reference to one,"
     " such as `${tasks.find.outputs.files}`"),
    ("{id: b, run: x, foreach: [1], max_parallel: 0}", "4:49: task `b`: `max_parallel` must be at least 1"),
    ("{id: b, run: [x, '${item}']}",
     "4:22: task `b`: `run`: `item` is known only in a task with `foreach`, and not in that key itself"),
    ("{id: b, run: x, foreach: '${item.x}'}",
     "4:30: task `b`: `foreach`: `item.x` is known only in a task with `foreach`, and not in that key itself"),
    ("{id: b, run: x, foreach: '${tasks.a.outputs.list}'}",
     "4:30: task `b`: `foreach`: `tasks.a.outputs.list` is not upstream of `b`; add `a` to its `needs`"),
]  # fmt: skip
RUNS = [
    ("dags/gone.yaml", "`dag`: no such file 'dags/gone.yaml' in PROJECT"),
    ("../out.yaml", "`dag`: '../out.yaml' lies outside the project PROJECT"),
    ("dags/d.yaml", "`dag`: goes round in a circle: dags/d.yaml -> dags/d.yaml"),
    ("dags/round.yaml",
     "dags/round.yaml has a fault: dags/round.yaml:1:30: task `r`: `dag`: goes round in a circle:"
     " dags/d.yaml -> dags/round.yaml -> dags/d.yaml"),
    ("dags/bad.yaml",
     "dags/bad.yaml has a fault: dags/bad.yaml:1:33: task `x`: unknown key `rum`; did you mean `run`?"),
    ("dags/other.yaml, params: {y: 1}", "dag `o` has no param `y`; allowed: x"),
]  # fmt: skip
HOOKS = [
    ("{approval: x}", "`approval` does not go with a hook; it may be `run`, `call` and `http`"),
    ("{run: x, foreach: [1]}", "`foreach` does not go with a hook"),
]


def faults(tmp_path: Path, task: str, hook: str = "") -> list[str]:
    (tmp_path / "dags").mkdir(exist_ok=True)
    if not (tmp_path / "dags" / "other.yaml").exists():
        (tmp_path / "dags" / "other.yaml").write_text("{id: o, params: {x: 1}, tasks: [{id: x, run: x}]}", "utf-8")
    head = "id: d\nparams: {region: eu}\n"
    secret = "secrets: [TOKEN]\n" if "secrets: [TOKEN]" in task else ""
    text = f"{head}tasks: [{{id: a, run: x}},\n    {task}]\n{secret}" + (f"on_exit: [{hook}]\n" if hook else "")
    (tmp_path / "dags" / "d.yaml").write_text(text, "utf-8")
    try:
        load_dag(Path("dags/d.yaml"), tmp_path)
    except InvalidFile as error:
        return [str(fault).removeprefix("dags/d.yaml:") for fault in error.faults]
    return []


@pytest.mark.parametrize("task", GOOD)
def test_each_kind_of_task_may_say_what_it_does_in_these_ways(tmp_path: Path, task: str) -> None:
    assert faults(tmp_path, task) == []


@pytest.mark.parametrize(("task", "fault"), BAD)
def test_a_rule_of_a_kind_is_told_with_its_place(tmp_path: Path, task: str, fault: str) -> None:
    assert faults(tmp_path, task) == [fault]


@pytest.mark.parametrize(("dag", "fault"), RUNS)
def test_a_dag_that_a_task_runs_is_read_with_it(tmp_path: Path, dag: str, fault: str) -> None:
    others = {
        "round": "{id: r, tasks: [{id: r, dag: dags/d.yaml}]}",
        "bad": "{id: o, tasks: [{id: x, run: x, rum: x}]}",
        "other": "{id: o, params: {x: 1}, tasks: [{id: x, run: x}]}",
    }
    (tmp_path / "dags").mkdir()
    for name, text in others.items():
        (tmp_path / "dags" / f"{name}.yaml").write_text(text, "utf-8")
    (found,) = faults(tmp_path, f"{{id: b, dag: {dag}}}")
    assert found.split("task `b`: ")[1] == fault.replace("PROJECT", str(tmp_path))


@pytest.mark.parametrize(("hook", "fault"), HOOKS)
def test_nothing_holds_up_a_hook(tmp_path: Path, hook: str, fault: str) -> None:
    (found,) = faults(tmp_path, "{id: b, run: x}", hook)
    assert found.endswith(f": task `on_exit`: {fault}")
