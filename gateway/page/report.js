/** What the report says of the answer: facts, sources, influence, and what each node revealed. */

import { byId, el, fill } from "./shared/dom.js";
import { shareOf } from "./question.js";
import { bytes, count, counted, listed, percent, seconds } from "./shared/format.js";

const TOLD = {
  question: "the question, sealed to it where nodes have certificates",
  topic: "the topic instead of the question, sealed to it where nodes have certificates",
  nothing: "nothing of the question but its length in tokens",
};
const ENDS = { length: "cut at the most tokens", stop: "ended by a stop string" };
const ENDINGS = { lost: "was lost", late: "was late", excluded: "took no part", empty: "took no part", departed: "took no part" };

/** How rows were written, and how many of them if not all. */
function travelled(compression) {
  if (!compression) return "";
  const { codec, keep_ratio: kept } = compression;
  return ` as ${codec}` + (kept < 1 ? `, ${percent(kept)} of them` : "");
}

/** Numbers beneath the answer. */
export function showFacts(report) {
  const { totals } = report;
  const facts = [
    ["First token after", seconds(totals.time_to_first_token_s)],
    totals.tokens_per_s === null ? null : ["Then", `${totals.tokens_per_s.toFixed(1)} tokens/s`],
    ["Answer", counted(report.num_tokens, "token") + (ENDS[report.finish_reason] ? `, ${ENDS[report.finish_reason]}` : "")],
    ["Rows sent", bytes(totals.kv_bytes)],
    totals.budget_steps ? ["For the byte budget", `${counted(totals.budget_steps, "step")} down`] : null,
    report.support === null ? null : ["Support by the texts", percent(report.support)],
  ];
  fill(byId("facts"), facts.filter(Boolean).map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  byId("facts").hidden = false;
}

/** Passages and members, by how much the answer looked at them. */
export function showSources(report, colourOf) {
  const passages = report.sources.map(({ node_id: id, passage, share }) => bar(`${id}, passage ${passage}`, share, colourOf(id)));
  const members = report.participants
    .filter((member) => member.influence !== null)
    .map((member) => bar(member.node_id, member.influence, member.role === "publisher" ? "var(--edge)" : colourOf(member.node_id)));
  fill(
    byId("sources"),
    el("div", {}, el("h3", {}, "Passages"),
      passages.length ? passages : el("p.muted", {}, "None drew the answer's attention."),
      el("p.note", {}, "Only on its own node a passage can be read: ", el("code", {}, "fedattn passages show"), ".")),
    el("div", {}, el("h3", {}, "Influence of each member"),
      members.length ? members : el("p.muted", {}, "Not known: there is no answer."),
      el("p.note", {}, "Share of the answer's attention that the member's rows drew. The publisher's are of the question.")),
  );
}

function bar(name, share, colour) {
  return el(
    "div.bar", { style: { "--own": colour } },
    el("span", {}, name), el("span.value", {}, percent(share)),
    el("span.track", { "aria-hidden": "true" }, el("span.fill", { style: { width: `${100 * share}%` } })),
  );
}

/** In plain words, who learned what. */
export function showRevealed(report, body, live) {
  const contributors = report.participants.filter((member) => member.role === "contributor");
  const publisher = report.participants.find((member) => member.role === "publisher");
  fill(
    byId("revealed"),
    contributors.map((member) => el(
      "div.revealed.stack", { style: { "--own": live.colourOf(member.node_id) } },
      el("h3", {}, member.node_id),
      sentences(member, body, live).map((words) => el("p", {}, words)),
    )),
    publisher && el("div.revealed.stack", {}, el("h3", {}, publisher.node_id),
      el("p", {}, "It published: it knows the question and the answer, and sent no rows.")),
    el("p.note", {}, "Rows are not text, but whoever may read them can recover the text that they were computed from. ",
      "No names of files and no text travelled; the aggregator carried the rows and learned sizes."),
  );
}

function sentences(member, body, live) {
  const ending = ENDINGS[member.state];
  const why = member.detail.replace(`${member.node_id}: `, "");
  if (ending === "took no part") {
    return [`It ${ending}${why ? `: ${why}` : ""}. No rows left it.`];
  }
  const blocks = member.rows === "asked" ? 0 : member.layers.filter((layer) => layer.up > 0).length;
  const words = [];
  if (blocks) {
    words.push(
      `It sent rows of ${of(member.passages, member.context_passages, "passage")} `
      + `(${of(member.text_tokens, member.context_tokens, "token")} of its text; ${counted(member.span_len, "row")}) `
      + `at ${blocks} of ${live.session.num_layers} blocks: ${bytes(member.bytes_up)}${travelled(member.compression)}, `
      + `read by ${listed(readers(member, live)) || "nobody"}.`,
    );
  } else if (member.rows === "asked") {
    words.push(
      `Its rows stayed with it: it answered ${counted(member.round_trips, "piece")} of queries about `
      + `${of(member.passages, member.context_passages, "passage")} of its text.`,
    );
  } else if (member.rows === "publisher_cache") {
    words.push("Nothing travelled: the publisher had its rows from an earlier question.");
  } else {
    words.push("No rows left it.");
  }
  if (member.rows === "contributor_cache") words.push("The rows were those of an earlier question, computed no second time.");
  words.push(`It was told ${TOLD[shareOf(body)] ?? "what this gateway is set to tell"}.`);
  if (ending) words.push(`It ${ending}${member.missing_from_layer === null ? "" : ` from block ${member.missing_from_layer} on`}${why ? `: ${why}` : ""}.`);
  return words;
}

function of(part, whole, word) {
  return whole === null ? counted(part, word) : `${count(part)} of ${counted(whole, word)}`;
}

function readers(member, live) {
  const members = live.session.members;
  const place = members.findIndex((other) => other.node_id === member.node_id);
  return members.slice(place + 1).filter((other) => other.sync_layers.length).map((other) => other.node_id);
}
