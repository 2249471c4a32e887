/** What travelled, against what would have: raw rows at every block, and the text itself. */

import { byId, el, fill, table } from "./shared/dom.js";
import { bytes, counted } from "./shared/format.js";
import { colour, onTheme } from "./shared/theme.js";

const TEXT_BYTES_PER_TOKEN = 4;
const HEIGHT = 210;
let draw = () => {};
let drawn = null;
onTheme(() => draw());
addEventListener("resize", () => draw());

/** Show it for one report. */
export function showBytes(report, session) {
  const contributors = report.participants.filter((member) => member.role === "contributor");
  const numTokens = contributors.reduce((sum, member) => sum + member.span_len, 0);
  const numText = contributors.reduce((sum, member) => sum + member.text_tokens, 0);
  const raw = numTokens * session.row_bytes;
  const moved = Array.from({ length: session.num_layers }, (_, layer) => sentAt(contributors, layer));
  const all = raw * session.num_layers;
  const text = numText * TEXT_BYTES_PER_TOKEN;
  const sent = report.totals.kv_bytes;
  const chart = el("div.chart", { role: "img", "aria-label":
    `At each block ${bytes(Math.max(...moved))} or less travelled; raw rows would take ${bytes(raw)} at every block.` });
  const rows = [["sent", sent], ["raw rows at every block, bf16", all], ["the text itself, about", text]];
  fill(
    byId("bytes"),
    el("p", {}, verdict(sent, all, text, numTokens)),
    el("div", {}, rows.map(([name, value]) => comparison(name, value, Math.max(all, sent, 1)))),
    el("h3", {}, "By block"), chart,
    el("details", {}, el("summary", {}, "As a table"), table("Bytes by block and sender",
      [["Block", true], ...contributors.map((member) => [member.node_id, true]), ["raw", true]],
      moved.map((_, layer) => [`${layer}`, ...contributors.map((member) => bytes(upAt(member, layer))), bytes(raw)]))),
  );
  draw = () => plot(chart, moved, raw);
  draw();
}

const upAt = (member, layer) => member.layers.find((at) => at.layer === layer)?.up ?? 0;
const sentAt = (members, layer) => members.reduce((sum, member) => sum + upAt(member, layer), 0);

function verdict(sent, all, text, numTokens) {
  if (!sent) return "Nothing travelled.";
  const less = all >= sent ? `${(all / sent).toFixed(1)} times less than` : "more than";
  return `${bytes(sent)} travelled for ${counted(numTokens, "token")}: ${less} raw rows at every block would take. `
    + `The text itself would be about ${bytes(text)}; the rest is the price of not handing it over.`;
}

function comparison(name, value, most) {
  return el(
    "div.bar", {}, el("span", {}, name), el("span.value", {}, bytes(value)),
    el("span.track", { "aria-hidden": "true" }, el("span.fill", { style: { width: `${(100 * value) / most}%` } })),
  );
}

function plot(box, moved, raw) {
  const width = box.clientWidth;
  if (!width) return;
  const axis = { stroke: colour("muted"), grid: { stroke: colour("line"), width: 1 }, ticks: { show: false }, font: "12px system-ui" };
  const bars = uPlot.paths.bars({ size: [0.7, 24] });
  drawn?.destroy(); // it listens to the window until then
  drawn = new uPlot(
    {
      width, height: HEIGHT, cursor: { show: false }, legend: { live: false },
      scales: { x: { time: false, range: [-0.7, moved.length - 0.3] }, y: { range: [0, 1.05 * Math.max(raw, ...moved, 1)] } },
      axes: [{ ...axis, grid: { show: false }, incrs: [1, 2, 5, 10, 20] }, { ...axis, size: 62, values: (_, ticks) => ticks.map(bytes) }],
      series: [
        { label: "block" },
        { label: "sent", paths: bars, points: { show: false }, fill: colour("accent"), stroke: colour("accent"), width: 0 },
        { label: "raw rows, bf16", points: { show: false }, stroke: colour("warn"), width: 2, dash: [5, 4] },
      ],
    },
    [moved.map((_, layer) => layer), moved, moved.map(() => raw)],
    box,
  );
}
