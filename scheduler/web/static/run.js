// The output of a run: follows it while it grows, and sifts it as one types.
"use strict";

{
  const box = document.getElementById("log"), follow = document.getElementById("follow");
  const find = document.getElementById("log-find"), task = document.getElementById("log-task");
  const told = document.getElementById("log-told"), none = document.getElementById("log-none");
  const MOST_LINES = 5000, LOOK_MS = 1000;
  let next = Number(box.dataset.next), isOver = box.dataset.over === "1", looking = false, widest = 0;

  // The names of tasks have a column as wide as the longest of them.
  function widen(name) {
    if (name.length <= widest || widest === 24) return;
    widest = Math.min(24, name.length);
    box.style.setProperty("--of", `${widest}ch`);
  }

  function lineOf(line) {
    const row = document.createElement("div"), said = document.createElement("span"), at = document.createElement("time");
    row.className = "line";
    row.id = `L${line.number}`;
    widen(line.task_id);
    at.textContent = clock(line.at_s);
    row.append(at, " ");
    if (box.dataset.tasks === "1") {
      const of = document.createElement("span");
      of.className = "of";
      of.textContent = line.task_id;
      row.append(of, " ");
    }
    said.className = "said";
    for (const [classes, text] of line.parts) {
      const part = document.createElement("span");
      part.className = classes;
      part.textContent = text;
      said.append(classes ? part : text);
    }
    row.append(said);
    return row;
  }

  function toEnd() {
    if (follow.checked) box.scrollTop = box.scrollHeight;
  }

  async function look() {
    if (isOver || looking) return;
    looking = true;
    try {
      const answer = await fetch(`${box.dataset.log}&after=${next}`, {credentials: "same-origin"});
      if (answer.ok) {
        const log = await answer.json();
        if (log.first > next) told.textContent = `${log.first - next} lines left out, more than there is room for`;
        box.append(...log.lines.map(lineOf));
        while (box.childElementCount > MOST_LINES) box.firstElementChild.remove();
        next = log.next;
        isOver = follow.closest("label").hidden = log.is_over;
        if (log.lines.length) { none.hidden = true; if (find.value) sift(); toEnd(); }
      }
    } catch { /* the stream tells when the server is back */ }
    looking = false;
  }

  // What is typed leaves the lines that hold it; Enter asks the server, which looks through all of them.
  function sift() {
    if (find.value === find.defaultValue && find.value) return;
    const word = find.value.toLowerCase();
    let count = 0;
    for (const line of box.children) {
      line.hidden = word !== "" && !line.querySelector(".said").textContent.toLowerCase().includes(word);
      if (word && !line.hidden) count += 1;
    }
    if (word) told.textContent = `${count} of the lines shown; Enter looks through all`;
    else if (told.textContent.includes("Enter")) told.textContent = "";
  }

  follow.closest("label").hidden = isOver;
  for (const each of task.options) widen(each.value);
  find.addEventListener("input", sift);
  task.addEventListener("change", () => task.form.requestSubmit());
  follow.addEventListener("change", toEnd);
  // Whoever scrolls back reads; whoever comes to the end again follows again.
  box.addEventListener("scroll", () => { follow.checked = box.scrollTop + box.clientHeight >= box.scrollHeight - 4; });
  document.addEventListener("tickpool:fresh", look);
  setInterval(() => { if (!document.hidden) look(); }, LOOK_MS);
  if (!location.hash.startsWith("#L")) toEnd();
}
