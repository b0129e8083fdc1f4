// Draws `<figure id="..." data-chart="...">` anew, with a cursor that tells what is under it; what it draws is in the
// attribute, as `charts.Chart` describes it. Without this script the figure has the server's drawing of the same.
"use strict";

{
  const INKS = {good: "accent", plain: "accent", bad: "bad", off: "off", open: "run", p50: "ink", p95: "late"}, FAINT = {good: 0.6, plain: 0.75, off: 0.5};
  const SECONDS = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400, 172800, 604800, 2419200];
  const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000];
  const day = moments("en-GB", {day: "numeric", month: "short"}), minute = moments("en-GB", {hour: "2-digit", minute: "2-digit"});
  const charts = new Map();
  const ink = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${INKS[name]}`).trim();
  const tone = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  function length(seconds) {
    if (seconds === 0) return "0";
    if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
    if (seconds < 60) return `${Number(seconds.toFixed(1))}s`;
    const minutes = Math.floor(seconds / 60), hours = Math.floor(minutes / 60), days = Math.floor(hours / 24);
    if (days) return `${days}d ${hours % 24}h`;
    return hours ? `${hours}h ${minutes % 60}m` : `${minutes}m ${Math.floor(seconds % 60)}s`;
  }

  class Chart {
    constructor(figure) {
      this.told = document.createElement("div");
      this.told.className = "plot-told";
      this.told.setAttribute("role", "status");
      this.whole = document.createElement("button");
      this.whole.className = "quiet plot-whole";
      this.whole.textContent = "Show all";
      this.whole.addEventListener("click", () => this.zoom(-1, this.points.length));
      this.sizes = new ResizeObserver(() => this.fit());
      this.read(figure);
      this.kinds = this.chart.shape === "line" ? ["plain"] : ["good", "bad", "off", "open", "plain"];
      this.plot = new uPlot(this.options(figure), this.columns(), figure);
      this.plot.over.append(this.told);
      this.plot.root.append(this.whole);
      this.listen(this.plot.over);
      this.take(figure);
    }

    read(figure) {
      this.chart = {marks: {}, base: "", shape: "bars", unit: "s", ...JSON.parse(figure.dataset.chart)};
      this.points = this.chart.points;
    }

    // A fresh figure has come in place of the last one: the chart moves there, with its cursor and what it is zoomed to.
    renew(figure) {
      const {min, max} = this.plot.scales.x, wasWhole = min <= -0.5 && max >= this.points.length - 0.5;
      this.read(figure);
      this.plot.setData(this.columns(), false);
      if (wasWhole) this.zoom(-1, this.points.length);
      else this.zoom(min, max);
      this.take(figure);
    }

    take(figure) {
      const label = figure.querySelector("svg")?.getAttribute("aria-label") ?? "";
      this.plot.over.setAttribute("aria-label", this.chart.base ? `${label}. Arrow keys walk through them, Enter opens one.` : label);
      figure.replaceChildren(this.plot.root);
      this.sizes.disconnect();
      this.sizes.observe(figure);
      this.figure = figure;
      this.fit();
    }

    fit() {
      const {clientWidth: width, clientHeight: height} = this.figure;
      if (width && (width !== this.plot.width || height !== this.plot.height)) this.plot.setSize({width, height});
    }

    columns() {
      const ofKind = (kind) => this.points.map((each) => this.kinds.length === 1 || each[2] === kind ? each[1] : null);
      return [this.points.map((_, number) => number), ...this.kinds.map(ofKind)];
    }

    // Points are as far apart as they are many, not by their times: a night without runs takes no room.
    options(figure) {
      const isSeconds = this.chart.unit === "s", font = `11px ${getComputedStyle(figure).fontFamily}`;
      const axis = {stroke: () => tone("soft"), font, ticks: {show: false}, grid: {stroke: () => tone("line"), width: 1}};
      return {
        width: figure.clientWidth, height: figure.clientHeight, padding: [8, 16, 0, 0], legend: {show: false},
        scales: {
          x: {time: false, range: (_, low, high) => this.range(low, high)},
          y: {range: (_, low, high) => [0, 1.12 * Math.max(high ?? 0, ...Object.values(this.chart.marks)) || 1]},
        },
        axes: [
          {...axis, size: 22, gap: 4, space: 80, grid: {show: false}, incrs: WHOLE, values: (_, splits) => splits.map((at) => this.moment(at))},
          {...axis, size: 58, gap: 6, space: 32, incrs: isSeconds ? SECONDS : WHOLE, values: (_, splits) => splits.map((each) => isSeconds ? length(each) : each)},
        ],
        series: [{}, ...this.kinds.map((kind) => this.series(kind))],
        cursor: {y: false, points: {show: false}, drag: {x: true, y: false, dist: 5, setScale: false}},
        hooks: {
          draw: [() => this.mark()], setCursor: [() => this.tell()], setSelect: [() => this.zoomToSelected()],
          setScale: [(_, key) => key === "x" && this.offerWhole()],
        },
      };
    }

    series(kind) {
      if (this.chart.shape === "line") return {stroke: () => ink(kind), width: 1.5, spanGaps: false};
      return {fill: () => ink(kind), alpha: FAINT[kind] ?? 1, width: 0, pxAlign: 0, points: {show: false}, paths: uPlot.paths.bars({size: [this.points.length > 100 ? 0.55 : 0.78, 22]})};
    }

    // From the left edge of the first point to the right edge of the last one.
    range(low, high) {
      const last = this.points.length - 1;
      return [(low ?? 0) <= 0 ? -0.5 : low, (high ?? last) >= last ? last + 0.5 : high];
    }

    zoom(min, max) { this.plot.setScale("x", {min, max}); }

    zoomToSelected() {
      const {left, width} = this.plot.select;
      if (!width) return;
      const [first, last] = [left, left + width].map((at) => Math.round(this.plot.posToVal(at, "x")));
      this.zoom(first - 0.5, last + 0.5);
      this.plot.setSelect({left: 0, width: 0, top: 0, height: 0}, false);
    }

    offerWhole() {
      const {min, max} = this.plot.scales.x;
      this.whole.hidden = min <= -0.5 && max >= this.points.length - 0.5;
    }

    moment(place) {
      const point = this.points[place];
      if (!point) return "";
      const {min, max} = this.plot.scales.x;
      const [first, last] = [this.points[Math.ceil(min)], this.points[Math.floor(max)]];
      const isLong = first && last && Math.abs(last[0] - first[0]) > 2 * 86400;
      return (isLong ? day : minute)(point[0]);
    }

    // Lines across at the marks, and a triangle over each bar that went bad: colour is not the only sign of it.
    mark() {
      const {ctx, bbox, scales} = this.plot, ratio = devicePixelRatio;
      ctx.save();
      for (const [name, value] of Object.entries(this.chart.marks)) {
        const y = Math.round(this.plot.valToPos(value, "y", true));
        ctx.strokeStyle = ink(name);
        ctx.lineWidth = ratio;
        ctx.setLineDash(name === "p50" ? [ratio, 3 * ratio] : [6 * ratio, 3 * ratio]);
        ctx.beginPath();
        ctx.moveTo(bbox.left, y);
        ctx.lineTo(bbox.left + bbox.width, y);
        ctx.stroke();
      }
      ctx.fillStyle = ink("bad");
      this.points.forEach(([, value, kind], place) => {
        if (kind !== "bad" || place < scales.x.min || place > scales.x.max) return;
        const x = this.plot.valToPos(place, "x", true), y = this.plot.valToPos(value, "y", true) - 2 * ratio;
        ctx.beginPath();
        ctx.moveTo(x, y);
        ctx.lineTo(x - 3.5 * ratio, y - 6 * ratio);
        ctx.lineTo(x + 3.5 * ratio, y - 6 * ratio);
        ctx.fill();
      });
      ctx.restore();
    }

    tell() {
      const {idx, left} = this.plot.cursor, point = this.points[idx];
      this.told.hidden = !point || left < 0;
      if (this.told.hidden) return;
      const [at, value, kind, name, note] = point, strong = document.createElement("strong");
      const told = value === null ? "-" : this.chart.unit === "s" ? length(value) : `${value} ${this.chart.unit}`.trim();
      strong.textContent = [told, note].filter(Boolean).join(" · ");
      this.told.replaceChildren(strong, ...[name, moment(at)].filter(Boolean).map((text) => {
        const line = document.createElement("span");
        line.textContent = text;
        return line;
      }));
      this.told.className = `plot-told ${kind}`;
      const x = this.plot.valToPos(idx, "x"), width = this.plot.over.clientWidth, own = this.told.offsetWidth;
      this.told.style.left = `${Math.max(-this.plot.over.offsetLeft, x + 10 + own <= width ? x + 10 : x - 10 - own)}px`;
    }

    listen(over) {
      let touched = null;
      over.tabIndex = 0;
      over.setAttribute("role", "group");
      // A finger has no cursor: its first tap tells, the second opens.
      over.addEventListener("click", (event) => {
        const at = this.plot.cursor.idx, isTold = event.pointerType !== "touch" || touched === at;
        touched = at;
        if (isTold) this.open();
      });
      over.addEventListener("blur", () => this.plot.setCursor({left: -10, top: -10}));
      over.addEventListener("keydown", (event) => {
        const {min, max} = this.plot.scales.x, [first, last] = [Math.ceil(min), Math.floor(max)];
        const now = this.plot.cursor.left >= 0 ? this.plot.cursor.idx : null;
        const wanted = {ArrowLeft: (now ?? last + 1) - 1, ArrowRight: (now ?? first - 1) + 1, Home: first, End: last}[event.key];
        if (event.key === "Enter") this.open();
        else if (event.key === "Escape") this.zoom(-1, this.points.length);
        if (wanted === undefined) return;
        event.preventDefault();
        this.plot.setCursor({left: this.plot.valToPos(Math.min(last, Math.max(first, wanted)), "x"), top: 0});
      });
    }

    open() {
      const point = this.points[this.plot.cursor.idx];
      if (point && this.chart.base) location.href = this.chart.base + encodeURIComponent(point[3]);
    }
  }

  function draw() {
    for (const figure of document.querySelectorAll("figure[data-chart]")) {
      const chart = charts.get(figure.id);
      if (!chart) charts.set(figure.id, new Chart(figure));
      else if (chart.figure !== figure) chart.renew(figure);
    }
  }

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((each) => each.plot.redraw()));
  document.addEventListener("tickpool:fresh", draw);
  draw();
}
