/** What waits for a node's owner, what was decided, and what the node gave to whom. */

import { bindSigning } from "./shared/signing.js";
import { bindTheme } from "./shared/theme.js";
import { byId, el, fill, table } from "./shared/dom.js";
import { request } from "./shared/client.js";
import { bytes, count, counted, moment, percent } from "./shared/format.js";

const REFRESH_MS = 5_000;
const LIFETIMES = [["1 hour", 3600], ["1 day", 86400], ["1 week", 604800], ["30 days", 2592000]];
const COLUMNS = ["number", "time", "event", "publisher", "subject", "purpose", "share", "blocks", "rows", "keep_ratio", "bytes", "receivers", "outcome", "detail"];
const NUMBERS = new Set(["number", "rows", "keep_ratio", "bytes"]);
let shown = "";

bindTheme(byId("theme"));
const askForKey = bindSigning(() => lookAtAll());
byId("refresh").addEventListener("click", () => guarded(lookAtAudit));
setInterval(() => document.hidden || byId("pending").closest("[hidden]") || guarded(look), REFRESH_MS);
lookAtAll();

async function lookAtAll() {
  await guarded(look);
  if (byId("signing").hidden) await guarded(lookAtAudit);
}

/** Do it; say what goes wrong. */
async function guarded(action) {
  try {
    await action();
    fill(byId("problem"));
  } catch (problem) {
    if (problem.status === 401) return askForKey();
    if (!problem.title) throw problem;
    fill(byId("problem"), el("div.problem", {}, el("strong", {}, problem.title), `: ${problem.detail}. `, problem.remedy));
  }
  return undefined;
}

async function look() {
  const entries = await (await request("v1/approvals")).json();
  if (JSON.stringify(entries) === shown) return; // or a form that is being filled in would be lost
  shown = JSON.stringify(entries);
  const pending = entries.filter((entry) => entry.decision === "pending");
  const decided = entries.filter((entry) => entry.decision !== "pending");
  fill(byId("pending"), pending.length ? pending.map(card) : el("p.muted", {}, "Nothing waits."));
  fill(byId("decided"), decided.length ? decisions(decided) : el("p.muted", {}, "Nothing."));
  document.title = `${pending.length ? `(${pending.length}) ` : ""}Approvals · Federated Attention`;
}

const named = (entry) => `${entry.publisher}${entry.subject ? ` for ${entry.subject}` : ""}`;

function card(entry) {
  const uses = el("input", { type: "number", min: "1", max: "10000", value: "1", required: true });
  const lifetime = el("select", {}, LIFETIMES.map(([words, seconds]) => el("option", { value: seconds }, words)));
  const decide = (verdict) => guarded(async () => {
    const query = new URLSearchParams({ lifetime_s: lifetime.value, ...(verdict === "approve" && { uses: uses.value }) });
    await send(entry, verdict, query);
  });
  return el(
    "div.ask", {},
    el("div", {}, el("h3", {}, named(entry)),
      el("p", {}, entry.purpose ? `Purpose, as it says: ${entry.purpose}.` : "It names no purpose."),
      el("p.muted.small", {}, `At most ${counted(entry.rows, "row")} (${percent(entry.keep_ratio)} of its tokens) at ${counted(entry.blocks.length, "block")} (${entry.blocks.join(", ")}): `
        + `${bytes(entry.bytes)}. Asked ${moment(new Date(1000 * entry.asked_at))}.`)),
    el("form", { "aria-label": named(entry), on: { submit: (event) => { event.preventDefault(); decide("approve"); } } },
      el("label", {}, "Sessions", uses), el("label", {}, "Good for", lifetime),
      el("button.main", { type: "submit" }, "Approve"),
      el("button", { type: "button", on: { click: () => decide("deny") } }, "Deny")),
  );
}

async function send(entry, verdict, query = "") {
  await request(`v1/approvals/${entry.id}/${verdict}?${query}`, { method: "POST" });
  byId("said").textContent = `${verdict === "approve" ? "Approved" : "Denied"}: ${named(entry)}`;
  await look();
  byId("pending-title").focus();
}

function decisions(entries) {
  const end = (entry) => entry.decision === "approved"
    ? el("button.plain", { type: "button", "aria-label": `End the approval of ${named(entry)}`, on: { click: () => guarded(() => send(entry, "deny")) } }, "End")
    : "";
  return table("Decisions that still hold",
    [["Decision", false], ["For", false], ["Purpose", false], ["At most", false], ["Sessions left", true], ["Until", false], ["", false]]
      .map(([name, isNumber]) => [name || el("span.unseen", {}, "End it"), isNumber]),
    entries.map((entry) => [
      el(`span.pill.${entry.decision === "approved" ? "good" : "bad"}`, {}, entry.decision), named(entry), entry.purpose,
      el("span.nowrap", {}, `${counted(entry.rows, "row")} (${percent(entry.keep_ratio)}) at ${counted(entry.blocks.length, "block")}, ${bytes(entry.bytes)}`),
      entry.uses_left ? count(entry.uses_left) : "", el("span.nowrap", {}, moment(new Date(1000 * entry.expires_at))), end(entry),
    ]));
}

async function lookAtAudit() {
  const audit = await (await request("v1/audit")).json();
  const chain = byId("chain");
  if (audit.broken_line) {
    chain.className = "bad";
    fill(chain, `Line ${audit.broken_line} of ${audit.broken_file} breaks the chain: ${audit.why}. Nothing from there on can be trusted.`);
  } else {
    chain.className = "small muted";
    fill(chain, `${counted(audit.num_entries, "entry").replace("entrys", "entries")}, an unbroken chain. Its head: `, el("code", {}, audit.head),
      ". Note it elsewhere: only so can you tell later whether the end was cut off.");
  }
  const used = COLUMNS.filter((name) => audit.entries.some((entry) => entry[name]?.length || entry[name] > 0));
  fill(byId("entries"), audit.entries.length
    ? table("The last entries of the audit log, newest first", used.map((name) => [name, NUMBERS.has(name)]),
      audit.entries.toReversed().map((entry) => used.map((name) => cell(name, entry[name]))))
    : el("p.muted", {}, "No entries."));
}

function cell(name, value) {
  if (name === "time") return el("span.nowrap", {}, moment(new Date(value)));
  if (name === "bytes") return value ? bytes(value) : "";
  return Array.isArray(value) ? value.join(", ") : `${value || ""}`;
}
