"""What a page of somebody else, and the next one at the same machine, get out of a browser that is logged in."""

from __future__ import annotations

import json
from urllib.parse import parse_qs

import httpx
import pytest
from dashboard import Dashboard
from playwright.sync_api import Browser
from service import Service, WaitFor
from web import Web

from scheduler.state_store import record_event

# The worst place there is: another port of the same host is the same site, to which the cookie is sent.
ATTACK = """<!doctype html><title>x</title><body><script>
const told = {};
async function tries(name, act) { try { told[name] = await act(); } catch (error) { told[name] = "-"; } }
const post = (path, more) => fetch(HERE + path, {method: "POST", credentials: "include", ...more});
const loads = (tag, path) => new Promise((done) => {
  const each = document.createElement(tag);
  each.onload = () => done("loaded"); each.onerror = () => done("-");
  each.src = HERE + path; document.body.append(each);
});
const form = (path, type) => new Promise((done) => {
  const [frame, it, field] = ["iframe", "form", "input"].map((each) => document.createElement(each));
  frame.name = path; frame.onload = () => setTimeout(() => done("-"), 100);
  Object.assign(it, {method: "post", action: HERE + path, target: path, enctype: type});
  field.name = '{"reason": "'; field.value = 'forged"}';
  it.append(field); document.body.append(frame, it); it.submit();
});
(async () => {
  const pause = "/api/v1/schedules/s/pause";
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data"]) {
    await tries(`form ${type}`, () => form(pause, type));
  }
  const blind = () => post(pause, {mode: "no-cors", body: "{}"});
  await tries("form that logs out", () => form("/logout", "application/x-www-form-urlencoded"));
  await tries("no-cors", async () => (await blind()).type === "opaque" ? "-" : "read");
  await tries("beacon", () => (navigator.sendBeacon(HERE + pause, "{}"), "-"));
  await tries("header", async () => (await post(pause, {headers: {"X-Tickpool": "1"}, body: "{}"})).status);
  await tries("cors", async () => (await post(pause, {body: "{}"})).status);
  await tries("logout", async () => ((await post("/logout", {mode: "no-cors"})).type, "-"));
  await tries("read", async () => (await fetch(HERE + "/api/v1/now", {credentials: "include"})).text());
  await tries("script", () => loads("script", "/api/v1/now"));
  await tries("script of its own", () => loads("script", "/static/app.js"));
  await tries("image", () => loads("img", "/static/icon.svg"));
  await tries("stream", () => new Promise((done) => {
    const stream = new EventSource(HERE + "/stream", {withCredentials: true});
    stream.onopen = () => done("open"); stream.onerror = () => { stream.close(); done("-"); };
  }));
  await tries("window", async () => {
    const opened = open(HERE + "/schedules");
    await new Promise((done) => setTimeout(done, 500));
    return opened.closed || !opened.length ? "-" : opened.document.body.textContent;
  });
  await tries("frame", () => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.onload = () => { try { done(frame.contentDocument.body.textContent || "-"); } catch { done("-"); } };
    frame.src = HERE + "/schedules"; document.body.append(frame);
  }));
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
</script>"""


def test_a_page_of_another_origin_changes_nothing_and_reads_nothing(
    service: Service, dashboard: Dashboard, browser: Browser, wait_for: WaitFor, web: Web
) -> None:
    service.schedule("s", "0 0 1 1 *", service.dag("d", "true"))
    service.start()
    wait_for(service.is_ready, 30, "a service")
    dashboard.start()
    page = dashboard.page(browser)
    web.says("/told")
    attack = web.says("/", ATTACK.replace("HERE", json.dumps(dashboard.url)).encode(), content_type="text/html")
    page.goto(attack)
    wait_for(lambda: any(each.target == "/told" for each in web.asked), 30, "the end of the attack")
    told = json.loads(next(each.body for each in web.asked if each.target == "/told"))
    assert len(told) == 16
    assert set(told.values()) == {"-"}, told
    assert not [each for each in service.events() if "@dashboard" in str(each)]
    # It is still logged in: the requests came with its cookie.
    page.goto(f"{dashboard.url}/schedules")
    assert page.locator("h1").inner_text() == "Schedules"
    page.context.close()


def test_no_script_reads_the_cookie_and_no_inline_script_runs(dashboard: Dashboard, browser: Browser) -> None:
    dashboard.start()
    page = dashboard.page(browser)
    assert page.evaluate("document.cookie") == ""
    page.evaluate(
        "() => { const it = document.createElement('script'); it.textContent = 'ran = 1'; document.body.append(it); }"
    )
    assert page.evaluate("window.ran") is None
    page.context.close()


def test_a_page_whose_session_is_over_leads_to_the_login_by_itself(
    dashboard: Dashboard, browser: Browser, wait_for: WaitFor, service: Service
) -> None:
    dashboard.start()
    page = dashboard.page(browser)
    page.wait_for_selector("#live.live")
    cookie = page.context.cookies()[0]
    headers = {"X-Tickpool": "1", "Cookie": f"{cookie['name']}={cookie['value']}"}
    assert httpx.post(f"{dashboard.url}/logout", headers=headers).status_code == 200
    record_event({"event": "news"}, service.log)  # else it is 15 seconds until the stream has something to say
    page.wait_for_selector("#token")
    page.context.close()


@pytest.mark.parametrize("has_scripts", [True, False])
def test_who_sits_down_after_a_logout_sees_nothing_by_going_back(
    service: Service, dashboard: Dashboard, browser: Browser, *, has_scripts: bool
) -> None:
    service.schedule("my_secret_schedule", "0 0 1 1 *", service.dag("d", "true"))
    dashboard.start()
    page = dashboard.page(browser, java_script_enabled=has_scripts)
    page.goto(f"{dashboard.url}/schedules?q=abc")
    page.click("text=Log out")
    page.wait_for_selector("#token")
    page.go_back()
    assert parse_qs(page.url.partition("?")[2]) == {"next": ["/schedules?q=abc"]}
    assert page.locator("nav").count() == 0
    page.context.close()
