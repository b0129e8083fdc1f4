"""The page of a run, as a person reads and uses it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
from dashboard import VIEWER, Dashboard
from playwright.sync_api import Browser, Page, expect
from service import Service, WaitFor

from scheduler.history import History
from scheduler.run_record import read_record
from scheduler.state_store import record_event
from scheduler.web.ansi import marked, parts_of
from scheduler.web.draw_run import graph, layers_of
from scheduler.web.run_index import RunIndex
from scheduler.web.run_lines import read_row
from scheduler.web.views.run import TaskView
from workers.segments import LogReader, rotated_path
from workers.settings import Settings

EVIL = "<script>document.title='taken'</script><img src=x onerror=document.title='taken'>"
GONE = "\N{REPLACEMENT CHARACTER}"
LONG = 'i=0; while [ ! -e go ]; do i=$((i+1)); echo "step $i"; sleep 0.1; done'


@pytest.fixture
def served(service: Service, wait_for: WaitFor, dashboard: Dashboard) -> Dashboard:
    """A service and a dashboard that run."""
    service.start()
    wait_for(service.is_ready, timeout=30, what="the service")
    return dashboard.start()


def ended(served: Dashboard, wait_for: WaitFor, run_id: str, status: str) -> None:
    wait_for(lambda: served.has_seen(run_id, status), timeout=30, what=f"{run_id} as {status}")


def opened(served: Dashboard, browser: Browser, run_id: str, more: str = "") -> Page:
    page = served.page(browser)
    page.goto(f"{served.url}/runs/{run_id}{more}")
    return page


def status_of(page: Page, status: str) -> None:
    expect(page.locator("#head .status")).to_contain_text(status, timeout=20_000)


def task_of(name: str, needs: list[str] | None = None) -> TaskView:
    return TaskView(name, 0, needs or [], "success", 1, [], 0, None, 0.0, 1.0, 0.1, 100, {}, None, False, name)


def test_a_run_that_failed_tells_why_and_is_mended_by_a_retry_of_what_failed(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    dag = service.tasks(
        "d",
        {"id": "extract", "run": "echo rows=7 >> $TASK_OUTPUT; echo extracted"},
        {"id": "load", "run": "echo loading; test -e good", "needs": ["extract"]},
    )
    run_id = service.ask(dag)
    ended(served, wait_for, run_id, "failed")
    page = opened(served, browser, run_id)
    status_of(page, "failed")
    expect(page.locator("#alerts")).to_contain_text("load")
    expect(page.locator("#task-extract + .more")).to_contain_text("rows=7")
    expect(page.locator("#log")).to_contain_text("extracted")
    page.click("svg.graph a[aria-label^='load']")
    assert page.url.endswith("#task-load")
    (service.root / "good").touch()
    page.get_by_role("button", name="Retry what failed").click()
    status_of(page, "success")
    expect(page.locator("#task-extract .status")).to_contain_text("kept")
    assert page.errors == []  # type: ignore[attr-defined]
    page.reload()
    page.get_by_role("link", name="Attempt 1").click()
    expect(page.locator("#task-load .status")).to_contain_text("failed")


def test_a_run_is_followed_while_it_works_and_cancelled(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    run_id = service.ask(service.dag("d", LONG))
    wait_for(lambda: served.has_seen(run_id, "running"), timeout=30, what="the run")
    page = opened(served, browser, run_id)
    expect(page.locator("#log")).to_contain_text(re.compile("step [0-9]+"))
    expect(page.locator(".follow")).to_be_visible()
    shown = page.locator("#log .line").count()
    wait_for(lambda: page.locator("#log .line").count() > shown + 3, what="further lines")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    status_of(page, "cancelled")
    expect(page.locator(".follow")).to_be_hidden()
    expect(page.locator("#alerts")).to_contain_text("ann@dashboard")
    assert service.events("cancel_requested", run_id)[0]["by"] == "ann@dashboard"
    assert page.errors == []  # type: ignore[attr-defined]


def test_a_task_is_retried_from_its_row_and_a_rerun_leads_to_the_new_run(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    dag = service.tasks("d", {"id": "a", "run": "true"}, {"id": "b", "run": "true", "needs": ["a"]})
    run_id = service.ask(dag)
    ended(served, wait_for, run_id, "success")
    page = opened(served, browser, run_id)
    page.on("dialog", lambda dialog: dialog.accept())
    page.click("[aria-label='Retry from b']")
    wait_for(lambda: "run_finished 2 success" in service.story(run_id), timeout=30, what="the second attempt")
    expect(page.locator("#task-a .status")).to_contain_text("kept")
    page.get_by_role("button", name="Rerun", exact=True).click()
    page.wait_for_url(re.compile(r"/runs/asked\.manual\."))
    status_of(page, "success")
    expect(page.locator("#facts")).to_contain_text(run_id)


def test_each_try_of_a_task_is_a_bar_of_its_own(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    run = 'test "$TASK_ATTEMPT" -gt 2'
    run_id = service.ask(service.tasks("d", {"id": "third", "run": run, "retries": {"max": 2, "delay": "500ms"}}))
    ended(served, wait_for, run_id, "success")
    page = opened(served, browser, run_id)
    bars = page.locator("#task-third .gantt rect")
    expect(bars).to_have_count(3)
    assert [bar.get_attribute("class") for bar in bars.all()] == ["failed", "failed", "success"]
    assert re.fullmatch(
        r"try 2 of 3, failed: began after [0-9.]+s, took [0-9.]+s", bars.nth(1).locator("title").text_content() or ""
    )
    places = [(float(bar.get_attribute("x") or 0), float(bar.get_attribute("width") or 0)) for bar in bars.all()]
    assert all(x + width < after for (x, width), (after, _) in itertools.pairwise(places))


def test_an_approval_is_given_with_a_comment(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    run_id = service.ask(service.tasks("d", {"id": "ok", "approval": "Release 42?"}))
    wait_for(lambda: served.has_seen(run_id, "parked"), timeout=30, what="the question")
    page = opened(served, browser, run_id)
    assert "Without an answer" not in page.locator("#alerts").inner_text()
    page.get_by_label("Comment").fill("looks good")
    page.get_by_role("button", name="Approve").click()
    status_of(page, "success")
    assert service.events("task_approved", run_id)[0]["comment"] == "looks good"
    took = page.locator("#facts div", has=page.get_by_text("Took", exact=True))
    expect(page.locator("#task-ok [data-name=memory]")).to_have_text("-")
    expect(page.locator("#task-ok [data-name=cpu]")).to_have_text("-")
    expect(took).to_contain_text(re.compile(r"[0-9.]+s, at work 0\.[0-9]s"))


@pytest.mark.parametrize(
    ("default", "told"),
    [({}, "times out"), ({"default": "approve"}, "is approved"), ({"default": "reject"}, "is rejected")],
)
def test_an_approval_tells_how_it_ends_without_an_answer(
    service: Service, served: Dashboard, wait_for: WaitFor, default: dict[str, str], told: str
) -> None:
    approval = {"message": "Release?", **default}
    run_id = service.ask(service.tasks("d", {"id": "ok", "approval": approval, "timeout": "4h"}))
    wait_for(lambda: served.has_seen(run_id, "parked"), timeout=30, what="the question")
    page = served.client().get(f"/runs/{run_id}", headers={"Accept": "text/html"}).text
    assert f"Without an answer it {told} <time" in page


def test_a_run_is_read_without_a_script_and_by_a_viewer_without_any_button(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    dag = service.tasks(
        "d", {"id": "a", "run": "echo first; echo second"}, {"id": "b", "run": "echo third", "needs": ["a"]}
    )
    run_id = service.ask(dag)
    ended(served, wait_for, run_id, "success")
    page = served.page(browser, VIEWER, java_script_enabled=False)
    page.goto(f"{served.url}/runs/{run_id}")
    expect(page.locator("svg.graph a")).to_have_count(2)
    expect(page.locator("svg.gantt")).to_have_count(2)
    expect(page.locator(".line")).to_have_count(3)
    assert page.locator("main form[data-action]").count() == 0
    page.fill("#log-find", "SECOND")
    page.click("text=Show >> nth=0")
    expect(page.locator(".line")).to_have_count(1)
    expect(page.locator(".found")).to_have_text("second")
    page.click("#task-b .id")
    expect(page.locator(".line")).to_have_text(re.compile("third"))
    with page.expect_download() as download:
        page.click("text=Download")
    assert Path(download.value.path()).read_text() == "third\n"


def test_what_tasks_say_and_how_they_are_named_is_shown_as_text(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    say = f"printf '%s\\n' \"{EVIL}\"; printf '\\033[31mred\\033[0m \\033]0;title\\007 \\033[2J\\r.\\n'"
    dag = {
        "id": "d",
        "params": {"p": EVIL},
        "tasks": [{"id": "t", "run": say}, {"id": "ok", "approval": EVIL, "needs": ["t"]}],
    }
    (service.root / "dags" / "d.yaml").write_text(json.dumps(dag), "ascii")
    run_id = service.ask("dags/d.yaml", params={"p": EVIL}, by=EVIL)
    wait_for(lambda: served.has_seen(run_id, "parked"), timeout=30, what="the question")
    for more in ("", "?find=script"):
        page = opened(served, browser, run_id, more)
        expect(page.locator("#log")).to_contain_text(EVIL)
        expect(page.locator("#alerts")).to_contain_text(EVIL)
        expect(page.locator("#facts")).to_contain_text(EVIL)
        assert page.title() == f"{run_id} · tickpool"
        assert page.locator("main script, main img").count() == 0
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f]", page.locator("#log").inner_text())
    page = opened(served, browser, run_id)
    expect(page.locator(".ansi-red")).to_have_text("red")


def test_what_a_task_says_while_one_looks_is_text_as_well(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    huge = "1;" * 5000
    link = "\\033]8;;javascript:alert(1)\\007link\\033]8;;\\007"
    say = f"printf '%s \\033[31mred\\033[0m {link} \\033[{huge}m.\\nlast\\n' \"{EVIL}\""
    run_id = service.ask(service.dag("d", f"while [ ! -e go ]; do sleep 0.05; done; {say}; while :; do sleep 1; done"))
    wait_for(lambda: served.has_seen(run_id, "running"), timeout=30, what="the run")
    page = opened(served, browser, run_id)
    (service.root / "go").touch()
    expect(page.locator("#log")).to_contain_text("last")
    expect(page.locator("#log")).to_contain_text(f"{EVIL} red {GONE}]8;;javascript:alert(1){GONE}link")
    expect(page.locator(".ansi-red")).to_have_text("red")
    assert page.locator("main script, main img, #log a, #log [style]").count() == 0
    assert page.title() == f"{run_id} · tickpool"
    assert page.errors == []  # type: ignore[attr-defined]


def test_a_log_of_a_hundred_thousand_lines_is_found_and_read_at_any_place(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    run_id = service.ask(service.dag("d", "seq -f 'number %.0f.' 100000"))
    ended(served, wait_for, run_id, "success")
    page = opened(served, browser, run_id)
    expect(page.locator(".line")).to_have_count(500)
    expect(page.locator("#log-told")).to_have_text("99500 earlier lines not shown")
    page.get_by_role("link", name="Earlier").click()
    expect(page.locator("#log-told")).to_have_text("lines 99001 to 99500 of 100000")
    expect(page.locator(".line").first).to_contain_text("number 99001.")
    page.fill("#log-find", "NUMBER 4242.")
    page.press("#log-find", "Enter")
    expect(page.locator("#log-told")).to_have_text("1 line with “NUMBER 4242.”")
    page.click(".line a")
    expect(page.locator(".line:target")).to_contain_text("number 4242.")
    expect(page.locator(".line:target")).to_be_in_viewport()
    expect(page.locator(".line").first).to_contain_text("number 3992.")
    page.get_by_role("link", name="Newest").click()
    expect(page.locator(".line").last).to_contain_text("number 100000.")


def test_whoever_scrolls_back_is_left_alone_until_the_end_is_wanted_again(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    run_id = service.ask(service.dag("d", f"seq 200; {LONG}"))
    wait_for(lambda: served.has_seen(run_id, "running"), timeout=30, what="the run")
    page = opened(served, browser, run_id)
    log, follow = page.locator("#log"), page.get_by_label("Follow")
    expect(log).to_contain_text("step 1")
    log.focus()
    page.keyboard.press("Home")
    expect(follow).not_to_be_checked()
    # A browser scrolls smoothly.
    wait_for(lambda: log.evaluate("box => box.scrollTop") == 0, what="the top")
    shown = page.locator(".line").count()
    wait_for(lambda: page.locator(".line").count() > shown + 5, what="further lines")
    assert log.evaluate("box => box.scrollTop") == 0

    def is_followed() -> bool:
        # While it scrolls, more may have come.
        page.keyboard.press("End")
        return follow.is_checked()

    wait_for(is_followed, what="the end")
    shown = page.locator(".line").count()
    wait_for(lambda: page.locator(".line").count() > shown + 5, what="further lines")
    expect(page.locator(".line").last).to_be_in_viewport()


def test_the_page_is_as_narrow_as_a_telephone(
    service: Service, served: Dashboard, browser: Browser, wait_for: WaitFor
) -> None:
    tasks = [{"id": f"{'long_name_' * 6}{n}", "run": f"printf '%0500d' {n}"} for n in range(4)]
    tasks.append({"id": "last", "run": "false", "needs": [str(task["id"]) for task in tasks]})
    run_id = service.ask(service.tasks("d", *tasks))
    ended(served, wait_for, run_id, "failed")
    page = opened(served, browser, run_id)
    page.set_viewport_size({"width": 360, "height": 800})
    for path in (f"/runs/{run_id}", "/history", "/history?at=2026-01-01T00:00"):
        page.goto(f"{served.url}{path}")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, path


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("plain", [("", "plain")]),
        ("", []),
        ("\x1b[1;31mbad\x1b[0m ok", [("ansi-bold ansi-red", "bad"), ("", " ok")]),
        ("\x1b[91ma\x1b[39mb", [("ansi-bright-red", "a"), ("", "b")]),
        ("\x1b[38;5;196ma\x1b[48;2;0;0;0mb", [("ansi-bright-red", "a"), ("ansi-bright-red ansi-bg-black", "b")]),
        ("\x1b[38;5;ma\x1b[38;9;9mb", [("ansi-black", "a"), ("ansi-black ansi-strike", "b")]),
        ("\x1b[38;2;1ma", [("ansi-bold", "a")]),
        ("\x1b[2Ka\tb\rc", [("", f"a\tb{GONE}c")]),
        ("\x1b[01;31m\x1b[Kerror\x1b[m\x1b[K: x\x1b[?25h", [("ansi-bold ansi-red", "error"), ("", ": x")]),
        ("\x1b[>4;1ma\x1b[1 mb", [("", "a"), ("", "b")]),
        ("\x1b]8;;javascript:x\x07a\x1b]8;;\x07", [("", f"{GONE}]8;;javascript:x{GONE}a{GONE}]8;;{GONE}")]),
        ("\x1b[" + "1;" * 50_000 + "ma", [("", f"{GONE}[" + "1;" * 50_000 + "ma")]),
        ("\x1b[31", [("", f"{GONE}[31")]),
        ("\x1b]0;t\x07", [("", f"{GONE}]0;t{GONE}")]),
        ("<b>\u202e", [("", f"<b>{GONE}")]),
    ],
)
def test_colours_become_classes_and_other_control_characters_are_replaced(
    text: str, parts: list[tuple[str, str]]
) -> None:
    assert parts_of(text) == parts


def test_what_is_found_is_marked_in_each_piece() -> None:
    assert marked([("", "a Bb"), ("ansi-red", "b")], "b") == [
        ("", "a "), ("found", "B"), ("found", "b"), ("ansi-red found", "b"),
    ]  # fmt: skip


def test_the_graph_has_a_column_for_each_depth_and_no_more_than_300_tasks() -> None:
    needs = {"c": ["a", "b"], "a": [], "b": ["a"], "d": ["a"]}
    assert layers_of(needs) == [["a"], ["b", "d"], ["c"]]
    drawn = graph([task_of(name, each) for name, each in needs.items()], {})
    assert drawn.count("<path") == 4
    assert drawn.count("<a ") == 4
    assert "style" not in drawn
    assert graph([task_of(f"t{number}") for number in range(301)], {}) == ""
    assert graph([task_of("alone")], {}) == ""


def test_a_run_whose_segment_was_pruned_says_so_with_what_is_still_known(
    service: Service, dashboard: Dashboard, wait_for: WaitFor
) -> None:
    service.environ |= {"STATE_SEGMENT_SIZE": "64KiB", "STATE_KEEP_SEGMENTS": "1"}
    service.start()
    dashboard.start()
    run_id = service.ask(service.dag("d", "true"), for_schedule="nightly")
    wait_for(lambda: dashboard.has_seen(run_id, "success"), timeout=30, what="its end")
    for count in (1, 2):
        for number in range(20):
            record_event({"event": "note", "number": number, "text": "x" * 4000}, service.log)
        wait_for(lambda count=count: len(service.events("segment_started")) == count, timeout=30, what="a rotation")
    wait_for(lambda: not rotated_path(service.log, 1).exists(), timeout=30, what="the end of the segment")
    api = dashboard.client()
    assert run_id in api.get("/history", headers={"Accept": "text/html"}).text
    answer = api.get(f"/runs/{run_id}", headers={"Accept": "text/html"})
    assert answer.status_code == 410
    assert "Its lines are no longer in the log, pruned with the segment that began at seq 1: " in answer.text
    assert f"run {run_id} of schedule nightly was success in attempt 1" in answer.text
    assert re.search(r"asked for [0-9: -]+, started [0-9: -]+, ended [0-9: -]+, took [0-9.]+s", answer.text)
    assert api.get(f"/api/v1/runs/{run_id}").status_code == 410


def test_a_run_is_read_by_the_places_of_its_lines_as_it_is_by_a_search(service: Service, wait_for: WaitFor) -> None:
    service.start()
    runs = [service.ask(service.dag("d", "echo $RUN_ID")) for _ in range(5)]
    wait_for(lambda: service.has_ended(*runs), timeout=30, what="the ends")
    logs = service.root / "logs"
    settings = Settings(
        state_path=str(service.log),
        events_path=str(logs / "orchestrator_events.jsonl"),
        run_logs_dir=str(logs / "runs"),
    )
    index = RunIndex()
    for chunk in LogReader(settings.state_path, from_start=True).chunks():
        index.take(chunk)
    for chunk in LogReader(settings.events_path, from_start=True).chunks():
        index.take_tasks(chunk)
    for run_id in runs:
        record = read_record(settings, run_id)
        assert record is not None
        assert record.tasks
        assert read_row(settings, index.by_id[run_id]) == record
    assert not History(LogReader(settings.state_path).read()).runs
