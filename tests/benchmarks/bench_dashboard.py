"""The dashboard on a large past: a million events, ten thousand schedules, a hundred thousand runs."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from .dashboard_client import TOKEN, Arrivals, Client, Dashboard, Streams, cpu_share
from .dashboard_world import DAYS, World, make_world
from .measure import Bench, Row, Sample, Target, percentile
from .processes import Service, in_child, wait_for

__all__ = ["dashboard"]

_CHROMIUM = Path("/usr/bin/chromium")
_RATE = 20
_STREAMS = 200
_EMPTY = "/login, the same"
# Notes when the address of a run first stands in the page, and how long each frame took.
_WATCH = """() => {
  window.seen = {};
  const rows = () => document.querySelectorAll('#runs a.id');
  const note = () => { for (const each of rows()) seen[each.textContent] ??= Date.now(); };
  new MutationObserver(note).observe(document.getElementById('runs'), {childList: true, subtree: true});
}"""
_SCROLL = """() => new Promise((done) => {
  const frames = []; let last = performance.now(), left = 240;
  const frame = (now) => {
    frames.push(now - last); last = now; scrollBy(0, 40);
    if (scrollY + innerHeight >= document.body.scrollHeight) scrollTo(0, 0);
    if (left-- > 0) requestAnimationFrame(frame); else done(frames.slice(1));
  };
  requestAnimationFrame(frame);
})"""
_PAINT = "() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime"


def dashboard(bench: Bench) -> list[Row]:
    """Its start, its pages while events arrive, what a browser sees of them, and what open streams cost."""
    bench.say("write the past")
    world = in_child(make_world, bench.place("project"), bench.of(10_000, 300), datetime.now(UTC))
    with Service(world.project, {"SCHED_MAX_PARALLEL": "3"}) as service:
        wait_for(lambda: len(service.note_tree()) >= 5, 60, "the workers", 0.05)
        rows = _starts(bench, world)
        with Dashboard(world.project) as place:
            place.first_page_s()
            place.caught_up_s()
            rows += _first_bytes(bench, world, place)
            rows += _streams(bench, world, place)
            rows += _in_browser(bench, world, place)
    return rows


def _pages(world: World) -> dict[str, Callable[[], str]]:
    """Return every page, by its name, as a function that returns an address of it, another one each time."""
    draw, runs, names = random.Random(5), world.runs, world.schedules
    now_s = time.time()
    return {
        "Now": lambda: "/",
        "Now, 30 days": lambda: "/?window=30d",
        "Schedules": lambda: f"/schedules?page={draw.randint(1, max(1, len(names) // 100))}",
        "Schedules, by next fire": lambda: "/schedules?sort=next",
        "Schedules, found by a text": lambda: f"/schedules?q={draw.randint(10, 99)}",
        "Schedules, failing, of a tenant": lambda: "/schedules?status=failing&tenant=acme",
        "Schedule": lambda: f"/schedules/{draw.choice(names)}",
        "Run": lambda: f"/runs/{draw.choice(runs)}",
        "Run, with 400 lines of output": lambda: f"/runs/{draw.choice(runs[-100:])}",
        "Forecast": lambda: "/forecast",
        "History": lambda: "/history",
        "History, found by a text": lambda: f"/history?q={draw.randint(100, 999)}",
        "History, failed, of a tenant and a time": lambda: (
            f"/history?status=failed&tenant=acme&since={now_s - 86_400 * draw.randint(1, DAYS)}"
        ),
        "History, at a past moment": lambda: f"/history?at={now_s - 86_400 * DAYS * draw.random()}",
        "Health": lambda: "/health",
    }


def _starts(bench: Bench, world: World) -> list[Row]:
    """Start it anew in each pass, and ask for each page once."""
    first, whole, memory, cold, empty = [], [], [], [], []
    for number in range(bench.passes):
        bench.say(f"start, pass {number + 1} of {bench.passes}")
        with Dashboard(world.project) as place:
            first.append(place.first_page_s())
            whole.append(place.caught_up_s())
            client = Client(place.port)
            empty.append(client.get("/login").first_ms)
            cold.append(max(client.get(page()).first_ms for page in _pages(world).values()))
            memory.append(place.rss_mib())
    what = f"dashboard of {world.events:,} events, {len(world.schedules):,} schedules, {len(world.runs):,} runs"
    return [
        Row("dashboard", f"{what}: start to first page", Sample.of("s", first), target=Target("value", "<=", 1.5)),
        Row("dashboard", "start until all of it is read", Sample.of("s", whole)),
        Row("dashboard", "memory then, RSS", Sample.of("MiB", memory)),
        Row(
            "dashboard", "first byte of the slowest page, each asked for the first time",
            Sample.of("ms", cold), _EMPTY, Sample.of("ms", empty),
        ),
    ]  # fmt: skip


def _first_bytes(bench: Bench, world: World, place: Dashboard) -> list[Row]:
    """Ask for each page many times while events arrive, the empty page in between."""
    count, rows = bench.of(40, 5), []
    # A first look begins them, and each takes a processor.
    bench.say("wait for the forecast and the audit")
    wait_for(lambda: _told(place, "forecast")["made_s"], 600, "the forecast", 0.5)
    wait_for(lambda: _told(place, "health")["audit"]["at_s"], 600, "the audit", 0.5)
    client = Client(place.port)
    with Arrivals(world.project, _RATE, "first"):
        for name, page in _pages(world).items():
            bench.say(f"first byte of {name}, {count} times")
            passes: list[list[float]] = [[] for _ in range(bench.passes)]
            empty: list[list[float]] = [[] for _ in range(bench.passes)]
            for ours, floor in zip(passes, empty, strict=True):
                for _ in range(count):
                    ours.append(client.get(page()).first_ms)
                    floor.append(client.get("/login").first_ms)
                    time.sleep(0.005)
            rows.append(
                Row(
                    "dashboard",
                    f"first byte of {name}, p95 of {count}, {_RATE} events/s arriving",
                    Sample.of("ms", (percentile(each, 0.95) for each in passes)),
                    _EMPTY,
                    Sample.of("ms", (percentile(each, 0.95) for each in empty)),
                    Target("value", "<=", 50),
                )
            )
    bench.say("weights")
    weights = {name: client.weight_kb(page()) for name, page in _pages(world).items()}
    heaviest = max(weights, key=weights.__getitem__)
    what = f"weight of the heaviest page ({heaviest}) with all it loads, compressed"
    own, empty_kb = Sample.of("kB", [weights[heaviest]]), Sample.of("kB", [client.weight_kb("/login")])
    return [*rows, Row("dashboard", what, own, "/login", empty_kb, Target("value", "<=", 200))]


def _told(place: Dashboard, name: str) -> Any:
    return json.loads(Client(place.port).get(f"/api/v1/{name}").body)


def _streams(bench: Bench, world: World, place: Dashboard) -> list[Row]:
    window_s = bench.of(5, 1)
    alone, busy, memory = [], [], []
    with Arrivals(world.project, _RATE, "streamed"):
        for number in range(bench.passes):
            bench.say(f"{_STREAMS} streams, pass {number + 1} of {bench.passes}")
            alone.append(cpu_share(place, partial(time.sleep, window_s)))
            before_mib = place.rss_mib()
            with Streams(place.port, _STREAMS) as streams:
                wait_for(lambda: streams.lines >= _STREAMS, 30, "the first change at each stream", 0.05)
                busy.append(cpu_share(place, partial(time.sleep, window_s)) - alone[-1])
                memory.append(max(0.0, place.rss_mib() - before_mib))
    what = f"{_STREAMS} open streams, {_RATE} events/s arriving"
    return [
        Row(
            "dashboard", f"{what}: more of a core", Sample.of("%", busy), "no stream, the same events",
            Sample.of("%", alone), Target("value", "<=", 25),
        ),
        Row("dashboard", f"{what}: more memory, RSS", Sample.of("MiB", memory), target=Target("value", "<=", 150)),
    ]  # fmt: skip


def _in_browser(bench: Bench, world: World, place: Dashboard) -> list[Row]:
    from playwright.sync_api import sync_playwright

    if not _CHROMIUM.exists():
        raise RuntimeError(f"needs a browser at {_CHROMIUM}")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=str(_CHROMIUM), args=["--no-sandbox"])
        rows = [*_paints(bench, world, place, chromium), _arrival(bench, world, place, chromium)]
        rows.append(_scroll(bench, world, place, chromium))
        chromium.close()
    return rows


def _opened(place: Dashboard, chromium: Any) -> Any:
    """Return a page of a browser with nothing kept, that has logged in."""
    page = chromium.new_context(viewport={"width": 1280, "height": 900}).new_page()
    page.goto(f"http://127.0.0.1:{place.port}/login")
    page.fill("#token", TOKEN)
    page.click("main button")
    page.wait_for_selector("#head")
    return page


def _paints(bench: Bench, world: World, place: Dashboard, chromium: Any) -> list[Row]:
    found: dict[str, list[float]] = {}
    for number in range(bench.passes):
        bench.say(f"first paint of each page, pass {number + 1} of {bench.passes}")
        page = _opened(place, chromium)
        for name, address in {"empty": lambda: "/login", **_pages(world)}.items():
            page.goto(f"http://127.0.0.1:{place.port}{address()}")
            page.wait_for_function(_PAINT)
            found.setdefault(name, []).append(float(page.evaluate(_PAINT)))
        page.context.close()
    empty = Sample.of("ms", found.pop("empty"))
    slowest = max(found, key=lambda name: sorted(found[name])[len(found[name]) // 2])
    what = f"first paint in Chromium, the slowest page ({slowest})"
    return [
        Row("dashboard", what, Sample.of("ms", found[slowest]), _EMPTY, empty, Target("value", "<=", 300)),
    ]


def _arrival(bench: Bench, world: World, place: Dashboard, chromium: Any) -> Row:
    """From the append of a request to the run in the open page History."""
    window_s, late = bench.of(12, 3), []
    for number in range(bench.passes):
        bench.say(f"events to an open page, pass {number + 1} of {bench.passes}")
        page = _opened(place, chromium)
        page.goto(f"http://127.0.0.1:{place.port}/history")
        page.evaluate(_WATCH)
        page.wait_for_timeout(500)
        with Arrivals(world.project, _RATE, f"seen{number}") as arrivals:
            page.wait_for_timeout(1000 * window_s)
        page.wait_for_timeout(1000)
        seen = page.evaluate("seen")
        late.append([seen[name] - 1000 * at_s for name, at_s in arrivals.asked.items() if name in seen])
        if len(late[-1]) < len(arrivals.asked):
            raise RuntimeError(f"{len(arrivals.asked) - len(late[-1])} runs never came to the page")
        page.context.close()
    what = f"append of an event to its row in the open page History, p95, {_RATE} events/s arriving"
    sample = Sample.of("ms", (percentile(each, 0.95) for each in late))
    return Row("dashboard", what, sample, target=Target("value", "<=", 200))


def _scroll(bench: Bench, world: World, place: Dashboard, chromium: Any) -> Row:
    frames: dict[str, list[float]] = {"/schedules": [], "/login": []}
    for number in range(bench.passes):
        bench.say(f"scroll, pass {number + 1} of {bench.passes}")
        page = _opened(place, chromium)
        with Arrivals(world.project, _RATE, f"scrolled{number}"):
            for path, found in frames.items():
                page.goto(f"http://127.0.0.1:{place.port}{path}")
                found.append(percentile(page.evaluate(_SCROLL), 0.99))
        page.context.close()
    what = f"a frame while the page Schedules is scrolled, p99, {_RATE} events/s arriving"
    ours, empty = (Sample.of("ms", found) for found in frames.values())
    return Row("dashboard", what, ours, _EMPTY, empty)
