/** Who did what when: a lane a member. */

import { byId, el, fill, table } from "./shared/dom.js";
import { seconds } from "./shared/format.js";

const ACTIVITIES = {
  compute: ["computes", "--working"],
  encode: ["writes or reads rows", "--writing"],
  send: ["sends", "--sending"],
  wait: ["waits", "--wait"],
  generate: ["writes the answer", "--answering"],
};
/** Drawn like another: reading rows like writing them, opening like waiting. */
const LIKE = { decode: "encode", open: "wait" };

/** Show the timelines of a report; says so if there are none. */
export function showTimeline(report) {
  const members = report.participants.filter((member) => member.timeline.length);
  if (!members.length) {
    fill(byId("timeline"), el("p.muted", {}, "No node told what it did when."));
    return;
  }
  const slices = members.flatMap((member) => member.timeline);
  const end = shownUntil(slices);
  fill(
    byId("timeline"),
    el("div.legend", {}, Object.values(ACTIVITIES).map(([words, name]) => el("span", { style: { "--own": `var(${name})` } }, words))),
    el("div.stack", {}, members.map((member) => lane(member, end)),
      el("div.axis", { "aria-hidden": "true" }, [0, 0.5, 1].map((part) => el("span", {}, seconds(part * end))))),
    el("p.note", {}, "Seconds since the question came to the publisher, each node by its own clock; they meet where each learned of it. ",
      `The answer was complete after ${seconds(endOf(slices))}.`),
    el("details", {}, el("summary", {}, "As a table"), table("Seconds by member and activity",
      [["Node", false], ...Object.values(ACTIVITIES).map(([words]) => [words, true])],
      members.map((member) => [member.node_id, ...Object.keys(ACTIVITIES).map((kind) => seconds(total(member, kind)))]))),
  );
}

const endOf = (slices) => Math.max(...slices.map((slice) => slice.begin_s + slice.duration_s));

/** A long answer would leave no room for what came before it: it is drawn up to here. */
function shownUntil(slices) {
  const firstToken = Math.min(...slices.filter((slice) => slice.activity === "generate").map((slice) => slice.begin_s));
  return Math.min(endOf(slices), 1.3 * firstToken);
}

const kindOf = (slice) => LIKE[slice.activity] ?? slice.activity;
const total = (member, kind) =>
  member.timeline.filter((slice) => kindOf(slice) === kind).reduce((sum, slice) => sum + slice.duration_s, 0);

function lane(member, end) {
  const sums = Object.keys(ACTIVITIES).map((kind) => `${ACTIVITIES[kind][0]} ${seconds(total(member, kind))}`);
  return el(
    "div", {}, el("p.small", {}, member.node_id),
    el("div.gantt", { role: "img", "aria-label": `${member.node_id}: ${sums.join(", ")}` },
      member.timeline.map((slice) => el(`span.slice.${slice.activity}`, {
        title: `${slice.activity}, block ${slice.layer}: ${seconds(slice.duration_s)}`,
        style: { left: `${(100 * slice.begin_s) / end}%`, width: `${(100 * slice.duration_s) / end}%` },
      }))),
  );
}
