// Everything here makes a page that is complete already more convenient: it keeps it up to date, counts time, listens to
// keys, and sends what is to be changed. Without it a page is read by loading it again.
"use strict";

// A page that is long to make says how long it waits for more news before it is made again.
const LEAST_MS = Number(document.querySelector("[data-least]")?.dataset.least ?? 50);

// -- time -------------------------------------------------------------------------------------------------------------

// Moments are of the server's zone: what a script tells stands beside what the server has written.
function moments(locale, parts) {
  const timeZone = document.documentElement.dataset.zone;
  let form;
  try { form = new Intl.DateTimeFormat(locale, {...parts, timeZone}); }
  catch { form = new Intl.DateTimeFormat(locale, parts); } // an old browser knows no offset as a zone
  return (seconds) => form.format(seconds * 1000);
}

const clock = moments("en-GB", {timeStyle: "medium"});
const moment = moments("sv-SE", {dateStyle: "short", timeStyle: "medium"});

function span(seconds) {
  const s = Math.abs(seconds);
  if (s < 60) return `${Math.floor(s)}s`;
  const m = Math.floor(s / 60), h = Math.floor(m / 60), d = Math.floor(h / 24);
  if (d) return `${d}d ${h % 24}h`;
  return h ? `${h}h ${m % 60}m` : `${m}m ${Math.floor(s % 60)}s`;
}

function tellTime() {
  const now = Date.now() / 1000;
  for (const each of document.querySelectorAll("[data-ago]")) each.textContent = `${span(now - each.dataset.ago)} ago`;
  for (const each of document.querySelectorAll("[data-since]")) each.textContent = span(now - each.dataset.since);
  for (const each of document.querySelectorAll("[data-until]")) {
    const left = each.dataset.until - now;
    each.textContent = left > 0 ? `in ${span(left)}` : "now";
  }
}

// -- live -------------------------------------------------------------------------------------------------------------

let refreshing = false, again = false, refreshedAt = 0, tookMs = 0, isPressed = false;

for (const each of document.querySelectorAll("[data-live]")) each.dataset.shown = each.innerHTML;
// A button that is replaced while it is pressed is never clicked.
addEventListener("pointerdown", () => { isPressed = true; }, true);
for (const name of ["pointerup", "pointercancel", "blur"]) addEventListener(name, () => setTimeout(() => { isPressed = false; }), true);

async function refresh() {
  // What nobody sees is made anew when somebody does.
  if (refreshing || document.hidden) { again = true; return; }
  refreshing = true;
  // A server that is busy is asked less often.
  const wait = refreshedAt + Math.max(LEAST_MS, 2 * tookMs) - performance.now();
  if (wait > 0) await new Promise((done) => setTimeout(done, wait));
  again = false;
  const askedAt = performance.now();
  try {
    const answer = await fetch(location.href, {headers: {Accept: "text/html"}, credentials: "same-origin"});
    const text = await answer.text();
    tookMs = performance.now() - askedAt;
    for (let looks = 0; isPressed && looks < 50; looks++) await new Promise((done) => setTimeout(done, 20));
    if (answer.redirected && new URL(answer.url).pathname === "/login") location.reload();
    else if (answer.ok) replaceLive(new DOMParser().parseFromString(text, "text/html"));
  } catch { /* the stream tells when the server is back */ }
  refreshedAt = performance.now();
  refreshing = false;
  if (again) refresh();
}

document.addEventListener("visibilitychange", () => { if (again && !refreshing) refresh(); });

function rowsOf(part) {
  return [...part.querySelectorAll("[data-row]")];
}

function nameOf(row) {
  return `${row.querySelector("a")?.textContent} ${row.querySelector(".status")?.className}`;
}

const CONTROLS = "a, button, summary, [tabindex]";

function controlOf(element) {
  return [element.tagName, element.getAttribute("href"), element.getAttribute("aria-label"), element.textContent].join(" ");
}

function replaceLive(page) {
  for (const fresh of page.querySelectorAll("[data-live]")) {
    const old = document.getElementById(fresh.id);
    if (!old || old.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) continue;
    const after = fresh.innerHTML;
    if (old.dataset.shown === after) continue;
    const known = new Set(rowsOf(old).map(nameOf));
    const held = old.contains(document.activeElement) ? controlOf(document.activeElement) : null;
    old.innerHTML = after;
    old.dataset.shown = after;
    // Whoever goes through a page by the keyboard stays where they are.
    if (held) [...old.querySelectorAll(CONTROLS)].find((each) => controlOf(each) === held)?.focus({preventScroll: true});
    // Only what has come is pointed out: a page that flashes all the time tells nothing.
    for (const row of rowsOf(old)) if (known.size && !known.has(nameOf(row))) row.classList.add("changed");
  }
  tellTime();
  if (rowNumber >= 0) selectRow(rowAt(), false);
  document.dispatchEvent(new CustomEvent("tickpool:fresh"));
}

function follow() {
  const light = document.getElementById("live");
  if (!light || !document.querySelector("[data-live]")) return;
  const stream = new EventSource("/stream");
  light.hidden = false;
  stream.addEventListener("change", refresh);
  // What changed between the page and the stream, nobody tells: it is looked at once more.
  stream.onopen = () => { light.className = "live"; light.textContent = "live"; refresh(); };
  stream.onerror = () => {
    light.className = "live lost"; light.textContent = "lost";
    // It is not tried again: the session may be over, and then the page leads to the login.
    if (stream.readyState === EventSource.CLOSED) refresh();
  };
  addEventListener("pagehide", () => stream.close());
  // How much of the machine a process takes is in no event.
  const every = Number(document.querySelector("[data-every]")?.dataset.every ?? 0) * 1000;
  if (every) setInterval(() => { if (!document.hidden && performance.now() - refreshedAt > every) refresh(); }, 1000);
}

// -- keys -------------------------------------------------------------------------------------------------------------

let rowNumber = -1, wentAt = 0;

function rowAt() {
  const at = rowsOf(document).findIndex((row) => row.contains(document.activeElement));
  return at < 0 ? rowNumber : at;
}

function selectRow(number, isAsked = true) {
  const rows = rowsOf(document);
  rows.forEach((row) => row.classList.remove("at"));
  if (number < 0 || !rows.length) return;
  rowNumber = Math.min(number, rows.length - 1);
  rows[rowNumber].classList.add("at");
  if (!isAsked) return;
  rows[rowNumber].scrollIntoView({block: "nearest"});
  rows[rowNumber].querySelector("a")?.focus({preventScroll: true});
}

// Single keys can be turned off, for those whose speech or switches send them unasked (WCAG 2.1.4).
const keysBox = document.getElementById("keys-on");
if (keysBox) {
  keysBox.checked = localStorage.getItem("tickpool.keys") !== "off";
  keysBox.addEventListener("change", () => localStorage.setItem("tickpool.keys", keysBox.checked ? "on" : "off"));
  document.getElementById("keys-open").hidden = false;
}

function showKeys() {
  document.getElementById("keys")?.showModal();
}

document.getElementById("keys-open")?.addEventListener("click", showKeys);

addEventListener("keydown", (event) => {
  if (!keysBox?.checked || document.querySelector("dialog[open]")) return;
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  const key = event.key;
  if (performance.now() - wentAt < 2000) {
    wentAt = 0;
    const link = document.querySelector(`[data-go="${CSS.escape(key)}"]`);
    if (link) { link.click(); return; }
  }
  if (key === "/") { event.preventDefault(); document.getElementById("search")?.focus(); }
  else if (key === "g") wentAt = performance.now();
  else if (key === "j") selectRow(rowAt() + 1);
  else if (key === "k") selectRow(Math.max(0, rowAt() - 1));
  else if (key === "?") showKeys();
});

// -- what is to be changed --------------------------------------------------------------------------------------------

function toast(text, isBad) {
  const line = document.createElement("p");
  line.textContent = text;
  if (isBad) line.className = "bad";
  document.getElementById("toasts").append(line);
  setTimeout(() => line.remove(), isBad ? 12000 : 5000);
}

addEventListener("submit", async (event) => {
  const form = event.target;
  if (!form.dataset?.action) return;
  event.preventDefault();
  const question = event.submitter?.dataset.confirm ?? form.dataset.confirm;
  if (question && !confirm(question)) return;
  await act(form, valuesOf(form, event.submitter));
});

// As the API takes them: numbers and ticks as such, params as the texts that were written, nothing that is empty.
function valuesOf(form, submitter) {
  const values = {};
  for (const [name, text] of new FormData(form, submitter)) {
    const type = form.elements[name]?.type;
    if (name.startsWith("param.")) (values.texts ??= {})[name.slice(6)] = text;
    else if (text !== "") values[name] = type === "number" ? Number(text) : type === "checkbox" || text;
  }
  return values;
}

async function act(form, values) {
  const buttons = form.querySelectorAll("button"), held = document.activeElement;
  buttons.forEach((button) => button.disabled = true);
  try {
    const answer = await fetch(form.dataset.action, {
      method: "POST", credentials: "same-origin",
      headers: {"Content-Type": "application/json", "X-Tickpool": "1"}, body: JSON.stringify(values),
    });
    if (answer.redirected) { location.href = answer.url; return; }
    const told = await answer.json();
    if (answer.ok && told.confirm) {
      // What it would come to was asked for; now it is asked for itself.
      if (confirm(told.confirm)) await act(form, {...values, dry_run: false});
      buttons.forEach((button) => button.disabled = false);
      return;
    }
    toast(answer.ok ? told.message ?? "Done" : `${told.title}: ${told.detail}`, !answer.ok);
    if (answer.ok && told.location) location.href = told.location;
    else { refreshedAt = 0; refresh(); }
  } catch (error) { toast(`Nothing was changed: ${error.message}`, true); }
  buttons.forEach((button) => button.disabled = false);
  // A button that is disabled loses the focus.
  if (document.activeElement === document.body) held.focus({preventScroll: true});
}

tellTime();
setInterval(tellTime, 1000);
follow();
