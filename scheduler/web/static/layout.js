// Where the boxes and edges of a graph go. A worker: three hundred tasks take a second, in which the page is not held up.
"use strict";

importScripts("/static/vendor/dagre.min.js");

function layoutOf({count, ends, width, height, isDown}) {
  const graph = new dagre.graphlib.Graph(), numbers = [...Array(count).keys()];
  graph.setGraph({rankdir: isDown ? "TB" : "LR", nodesep: 14, edgesep: 14, ranksep: 44, ranker: "tight-tree", marginx: 6, marginy: 6});
  for (const number of numbers) graph.setNode(String(number), {width, height});
  for (const [from, to] of ends) graph.setEdge(String(from), String(to), {});
  dagre.layout(graph);
  // Along is the way that the edges go, across the other one.
  const along = isDown ? (at) => at.y : (at) => at.x, across = isDown ? (at) => at.x : (at) => at.y;
  const nodes = numbers.map((number) => graph.node(String(number))), whole = graph.graph();
  const columns = new Set(nodes.map((at) => Math.round(along(at))));
  const lines = ends.map(([from, to]) => {
    // Beside the boxes of a column an edge goes straight; it turns only in the gaps between them.
    const passed = graph.edge(String(from), String(to)).points.slice(1, -1).filter((at) => columns.has(Math.round(along(at))));
    const stops = [nodes[from], ...passed, nodes[to]].map((at) => [along(at), across(at)]);
    return lineThrough(stops, (isDown ? height : width) / 2, isDown);
  });
  const corners = nodes.map((at) => [at.x - width / 2, at.y - height / 2]);
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

onmessage = ({data}) => postMessage({...layoutOf(data), key: data.key});
