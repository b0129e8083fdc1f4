// Lays out the graph of a run, so that no edge runs through a box. The server has drawn it whole: its boxes and edges are
// moved and stay what they are, with their statuses, links and titles. Live ones are put where they were.
"use strict";

{
  const place = document.getElementById("graph"), box = document.getElementById("graph-box");
  const tools = document.getElementById("graph-tools"), narrow = matchMedia("(max-width: 40rem)");
  const LEAST_ZOOM = 0.2, LEGIBLE_ZOOM = 0.75, MOST_ZOOM = 2;
  let known = "", layout = null, zoom = 1, focused = "";

  function lay() {
    const svg = place.querySelector("svg");
    if (!svg) return;
    const boxes = [...svg.querySelectorAll("[data-task]")], edges = [...svg.querySelectorAll("[data-from]")];
    const key = JSON.stringify([narrow.matches, boxes.map((each) => each.dataset.task), edges.map((each) => ({...each.dataset}))]);
    const isNew = key !== known;
    if (isNew) layout = layoutOf(boxes, edges);
    known = key;
    boxes.forEach((each, number) => each.setAttribute("transform", `translate(${layout.corners[number].join(" ")})`));
    edges.forEach((each, number) => each.setAttribute("d", layout.lines[number]));
    svg.setAttribute("viewBox", `0 0 ${layout.width} ${layout.height}`);
    svg.classList.add("laid");
    const fitting = box.clientWidth / layout.width;
    scale(isNew && fitting > LEGIBLE_ZOOM ? Math.min(1, fitting) : zoom);
    if (isNew) show(svg.querySelector(".box:is(.failed, .crashed, .timeout, .running)"));
    if (focused && document.activeElement === document.body) {
      boxes.find((each) => each.dataset.task === focused)?.focus({preventScroll: true});
    }
  }

  function layoutOf(boxes, edges) {
    const rect = boxes[0].querySelector("rect"), width = Number(rect.getAttribute("width")), height = Number(rect.getAttribute("height"));
    const isDown = narrow.matches, graph = new dagre.graphlib.Graph(), numbers = new Map();
    graph.setGraph({rankdir: isDown ? "TB" : "LR", nodesep: 14, edgesep: 14, ranksep: 44, ranker: "tight-tree", marginx: 6, marginy: 6});
    boxes.forEach((each, number) => { numbers.set(each.dataset.task, String(number)); graph.setNode(String(number), {width, height}); });
    const ends = edges.map((each) => [numbers.get(each.dataset.from), numbers.get(each.dataset.to)]);
    for (const [from, to] of ends) graph.setEdge(from, to, {});
    dagre.layout(graph);
    // Along is the way that the edges go, across the other one.
    const along = isDown ? (at) => at.y : (at) => at.x, across = isDown ? (at) => at.x : (at) => at.y;
    const half = (isDown ? height : width) / 2, whole = graph.graph();
    const columns = new Set(boxes.map((_, number) => Math.round(along(graph.node(String(number))))));
    const lines = ends.map(([from, to]) => {
      // Beside the boxes of a column an edge goes straight; it turns only in the gaps between them.
      const passed = graph.edge(from, to).points.slice(1, -1).filter((at) => columns.has(Math.round(along(at))));
      const stops = [graph.node(from), ...passed, graph.node(to)].map((at) => [along(at), across(at)]);
      return lineThrough(stops, half, isDown);
    });
    const corners = boxes.map((_, number) => {
      const at = graph.node(String(number));
      return [at.x - width / 2, at.y - height / 2];
    });
    return {lines, corners, width: Math.ceil(whole.width), height: Math.ceil(whole.height)};
  }

  function lineThrough(stops, half, isDown) {
    const at = (along, across) => isDown ? `${across} ${along}` : `${along} ${across}`;
    let line = "";
    for (let number = 1; number < stops.length; number++) {
      const [begin, end] = [stops[number - 1][0] + half, stops[number][0] - half];
      const [one, other] = [stops[number - 1][1], stops[number][1]], middle = (begin + end) / 2;
      line += `${line ? "L" : "M"}${at(begin, one)}C${at(middle, one)} ${at(middle, other)} ${at(end, other)}`;
    }
    return line;
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
  narrow.addEventListener("change", lay);
  document.addEventListener("tickpool:fresh", lay);
  lay();
}
