/** Who is joined, by itself up to date. */

import { byId, el, fill } from "./shared/dom.js";
import { clock, count, counted, lasting, percent } from "./shared/format.js";
import { request } from "./shared/client.js";

const REFRESH_MS = 15_000;
const PRESSURES = {
  none: ["good", "well"],
  high: ["warn", "under pressure: sends fewer rows"],
  critical: ["bad", "overloaded: takes no new sessions"],
};
let isShown = false;

/**
 * Show the nodes now and every while, as long as somebody looks.
 *
 * @param {(nodes: object[]) => void} onNodes told who is joined now.
 * @param {() => void} onRefused called when the gateway wants to know who asks.
 * @returns {() => Promise<void>} looks now.
 */
export function watchNodes(onNodes, onRefused) {
  async function look() {
    try {
      const nodes = await (await request("v1/participants")).json();
      const joined = nodes.filter((node) => node.state !== "departed");
      show(joined, nodes.filter((node) => node.state === "departed"));
      onNodes(joined);
    } catch (problem) {
      if (problem.status === 401) onRefused();
      else if (problem.status !== 429 || !isShown) sayWhy(problem); // else what is shown says of when it is
    }
  }
  const lookIfSeen = () => document.hidden || byId("nodes").closest("[hidden]") || look();
  setInterval(lookIfSeen, REFRESH_MS);
  document.addEventListener("visibilitychange", lookIfSeen);
  return look;
}

function sayWhy(problem) {
  if (!problem.title) throw problem;
  byId("nodes-when").textContent = "not known now";
  fill(byId("nodes"), el("p.muted", {}, `${problem.detail}. ${problem.remedy}`));
}

function show(joined, gone) {
  isShown = true;
  byId("nodes-when").textContent = clock(new Date());
  fill(byId("nodes"), joined.length ? joined.map(card) : el("p.muted", {}, "Nobody is joined."), gone.map(goneCard));
}

function card(node) {
  const [kind, words] = PRESSURES[node.health?.pressure] ?? ["muted", "has not said how it is"];
  return el(
    "div.node", {},
    el("div.head", {}, el("h3.name", {}, node.node_id), el(`span.pill.${kind}`, {}, words)),
    el("p.small", {}, textOf(node)),
    skippedOf(node),
    el("p.small.muted", {}, node.model_name),
    el("p.small.muted", {}, [
      node.can_publish ? "can publish" : "contributes only",
      node.active_sessions ? `in ${counted(node.active_sessions, "session")}` : null,
      `joined for ${lasting(node.joined_for_s)}`,
    ].filter(Boolean).join(" · ")),
    node.health ? el("p.small.muted", {}, healthOf(node.health)) : null,
    node.warnings.map((warning) => el("p.small.warn", {}, warning)),
  );
}

function goneCard(node) {
  return el(
    "div.node.gone", {},
    el("div.head", {}, el("h3.name", {}, node.node_id), el("span.pill.warn", {}, "left")),
    el("p.small.muted", {}, `${lasting(node.left_for_s)} ago: ${node.state_reason}; answers are without it`),
  );
}

function textOf(node) {
  if (node.context_tokens === null) return "its text is not known yet";
  if (node.context_tokens === 0) return "no text of its own";
  const parts = [counted(node.context_tokens, "token")];
  if (node.context_passages !== null) parts.push(counted(node.context_passages, "passage"));
  if (node.context_files !== null) parts.push(counted(node.context_files, "file"));
  return parts.join(" · ");
}

function skippedOf(node) {
  const reasons = Object.entries(node.skipped_files);
  if (!reasons.length) return null;
  const words = reasons.map(([reason, number]) => `${count(number)} ${reason.replaceAll("_", " ")}`);
  return el("p.small.warn", {}, `files not read: ${words.join(", ")}`);
}

function healthOf(health) {
  const warmth = health.temperature_c === null ? "" : `, ${Math.round(health.temperature_c)} °C`;
  return `${percent(health.memory_free)} of memory free${warmth}`;
}
