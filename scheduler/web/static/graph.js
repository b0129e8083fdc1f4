// Lays out the graph of a run, so that no edge runs through a box. The server has drawn it whole: its boxes and edges are
// moved and stay what they are, with their statuses, links and titles. Live ones are put where they were.
"use strict";

{
  const place = document.getElementById("graph"), box = document.getElementById("graph-box");
  const tools = document.getElementById("graph-tools"), narrow = matchMedia("(max-width: 40rem)");
  const LEAST_ZOOM = 0.01, LEGIBLE_ZOOM = 0.75, MOST_ZOOM = 2;
  const worker = new Worker("/static/layout.js");
  let layout = {key: ""}, asked = "", zoom = 1, focused = "", isShown = false;

  function lay() {
    const svg = place.querySelector("svg");
    if (!svg) return;
    const boxes = [...svg.querySelectorAll("[data-task]")], edges = [...svg.querySelectorAll("[data-from]")];
    const numbers = new Map(boxes.map((each, number) => [each.dataset.task, number])), rect = boxes[0].querySelector("rect");
    const wanted = {
      count: boxes.length, ends: edges.map((each) => [numbers.get(each.dataset.from), numbers.get(each.dataset.to)]),
      width: Number(rect.getAttribute("width")), height: Number(rect.getAttribute("height")), isDown: narrow.matches,
    };
    const key = JSON.stringify(wanted);
    if (key !== layout.key) {
      if (key !== asked) worker.postMessage({...wanted, key});
      asked = key;
      isShown = false;
      return;
    }
    boxes.forEach((each, number) => each.setAttribute("transform", `translate(${layout.corners[number].join(" ")})`));
    edges.forEach((each, number) => each.setAttribute("d", layout.lines[number]));
    svg.setAttribute("viewBox", `0 0 ${layout.width} ${layout.height}`);
    svg.classList.add("laid");
    const fitting = box.clientWidth / layout.width;
    scale(!isShown && fitting > LEGIBLE_ZOOM ? Math.min(1, fitting) : zoom);
    // Where all is well it begins with its first task, which may lie far down.
    if (!isShown) show(svg.querySelector(".box:is(.failed, .crashed, .timeout, .running)") ?? boxes[0]);
    isShown = true;
    if (focused && document.activeElement === document.body) {
      boxes.find((each) => each.dataset.task === focused)?.focus({preventScroll: true});
    }
  }

  function scale(wanted) {
    zoom = Math.min(MOST_ZOOM, Math.max(LEAST_ZOOM, wanted));
    const svg = place.querySelector("svg"), width = layout.width * zoom, height = layout.height * zoom;
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    // The box keeps what it has been scrolled to while the drawing in it is replaced by a fresh one.
    place.style.width = `${width}px`;
    place.style.height = `${height}px`;
    tools.hidden = zoom === 1 && width <= box.clientWidth && height <= box.clientHeight;
  }

  function show(which) {
    if (!which) return;
    const [x, y] = layout.corners[[...place.querySelectorAll("[data-task]")].indexOf(which)].map((each) => each * zoom);
    if (x > box.clientWidth * 0.8) box.scrollLeft = x - box.clientWidth / 2;
    if (y > box.clientHeight * 0.9) box.scrollTop = y - box.clientHeight / 2;
  }

  function mark(task) {
    for (const each of place.querySelectorAll(".edge")) {
      each.classList.toggle("near", task !== "" && (each.dataset.from === task || each.dataset.to === task));
    }
  }

  const taskAt = (element) => element.closest?.("[data-task]")?.dataset.task ?? "";
  place.addEventListener("pointerover", (event) => mark(taskAt(event.target)));
  place.addEventListener("pointerleave", () => mark(""));
  // A box that a fresh one takes the place of loses the focus; it was left only for something else.
  for (const name of ["focusin", "pointerdown"]) {
    document.addEventListener(name, (event) => { focused = taskAt(event.target); mark(focused); });
  }
  tools.addEventListener("click", (event) => {
    const wanted = event.target.dataset.zoom;
    if (wanted === "fit") scale(Math.min(1, box.clientWidth / layout.width, box.clientHeight / layout.height));
    else if (wanted) scale(zoom * Number(wanted));
  });
  worker.addEventListener("message", ({data}) => { layout = data; lay(); });
  narrow.addEventListener("change", lay);
  document.addEventListener("tickpool:fresh", lay);
  lay();
}
