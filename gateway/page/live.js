/** The session as it happens: whose rows came at which block, and what the publisher waited for. */

import { byId, el, fill } from "./shared/dom.js";
import { bytes, counted, listed, seconds } from "./shared/format.js";

const NUM_COLOURS = 6;

/** One lane a member; a cell a block, which fills when rows come. */
export class Live {
  #lanes = new Map();
  #session;
  #bytes = 0;
  #waited = 0;

  /** @param {object} session data of the event `session`. */
  constructor(session) {
    this.#session = session;
    const members = session.members.map((member, place) => this.#lane(member, place));
    fill(byId("lanes"), members);
    byId("session-sum").textContent = "";
    byId("latest").textContent = session.excluded.length
      ? `Without ${session.excluded.map((node) => node.detail || node.node_id).join("; ")}`
      : "";
    byId("session").hidden = false;
  }

  /** The colour of a member, as a CSS value. */
  colourOf(nodeId) {
    const place = this.#session.members.findIndex((member) => member.node_id === nodeId);
    return place < 0 ? "var(--edge)" : `var(--node-${place % NUM_COLOURS})`;
  }

  get session() {
    return this.#session;
  }

  /** Take the report: without an event `layer` all rows were there before, or none were wanted. */
  end(report) {
    if (this.#bytes || report.totals.kv_bytes) return;
    const isCached = report.participants.some((member) => member.rows === "publisher_cache");
    const isAsked = report.participants.some((member) => member.rows === "asked");
    if (isAsked) {
      byId("latest").textContent = "No rows travelled: they stayed where they are, and were asked.";
      return;
    }
    byId("latest").textContent = isCached
      ? "Nothing had to travel: the publisher had these rows from an earlier question."
      : "Nothing travelled.";
  }

  /** Take an event `layer`. */
  add(event) {
    const most = Math.max(...event.arrivals.map((arrival) => arrival.num_bytes), 1);
    for (const arrival of event.arrivals) this.#came(arrival, event.layer, most);
    const publisher = [...this.#lanes.values()].at(-1);
    const cell = publisher.cells[event.layer];
    cell.className = "cell waited";
    publisher.waits.push([cell, event.wait_s]);
    const longest = Math.max(...publisher.waits.map(([, wait]) => wait), 1e-9);
    for (const [each, wait] of publisher.waits) each.style.height = `${Math.round((100 * wait) / longest)}%`;
    this.#waited += event.wait_s;
    publisher.sum.textContent = seconds(this.#waited);
    byId("session-sum").textContent = `${bytes(this.#bytes)} at the publisher`;
    byId("latest").textContent = this.#told(event);
    this.#describe();
  }

  #told(event) {
    const parts = event.arrivals.map((arrival) =>
      arrival.num_bytes ? `${bytes(arrival.num_bytes)} from ${arrival.node_id}` : `rows of ${arrival.node_id} were cached`,
    );
    return `Block ${event.layer}: ${listed(parts) || "nothing came"}, waited ${seconds(event.wait_s)}`;
  }

  #came(arrival, layer, most) {
    const lane = this.#lanes.get(arrival.node_id);
    if (!lane) return;
    this.#bytes += arrival.num_bytes;
    lane.bytes += arrival.num_bytes;
    lane.blocks += 1;
    const cell = lane.cells[layer];
    cell.className = arrival.num_bytes ? "cell came fresh" : "cell cached fresh";
    if (arrival.num_bytes) cell.style.height = `${Math.max(25, Math.round((100 * arrival.num_bytes) / most))}%`;
    cell.title = `block ${layer}: ${counted(arrival.num_rows, "row")}, ${bytes(arrival.num_bytes)}, waited ${seconds(arrival.wait_s)}`;
    lane.sum.textContent = bytes(lane.bytes);
  }

  #describe() {
    for (const [id, lane] of this.#lanes) {
      const what = lane.waits.length || lane.isPublisher
        ? `${id} waited ${seconds(this.#waited)} for rows`
        : `${bytes(lane.bytes)} came from ${id} at ${counted(lane.blocks, "block")}`;
      lane.box.setAttribute("aria-label", what);
    }
  }

  #lane(member, place) {
    const isPublisher = member.role === "publisher";
    const number = this.#session.num_layers;
    const cells = Array.from({ length: number }, (_, layer) =>
      el(this.#isNeeded(member, place, layer) ? "span.cell" : "span.cell.idle"),
    );
    const box = el("div.cells", { role: "img", "aria-label": `${member.node_id}: nothing yet`,
      style: { "grid-template-columns": `repeat(${number}, minmax(0, 1fr))` } }, cells);
    const sum = el("div.sum", {}, "");
    this.#lanes.set(member.node_id, { cells, box, sum, bytes: 0, blocks: 0, waits: [], isPublisher });
    const colour = isPublisher ? "var(--edge)" : `var(--node-${place % NUM_COLOURS})`;
    return el(
      "div.lane", { style: { "--own": colour } },
      el("div.who", {}, el("div.name", {}, member.node_id), el("div.to", {}, this.#role(member, place))),
      box, sum,
      ...(isPublisher ? [el("span", { "aria-hidden": "true" }), el("div.axis", { "aria-hidden": "true" },
        el("span", {}, "block 0"), el("span", {}, `${number - 1}`)), el("span", { "aria-hidden": "true" })] : []),
    );
  }

  /** Whether rows of a contributor are wanted at a block; of the publisher, whether it wants any. */
  #isNeeded(member, place, layer) {
    if (member.role === "publisher") return member.sync_layers.includes(layer);
    return this.#session.members.slice(place + 1).some((later) => later.sync_layers.includes(layer));
  }

  #role(member, place) {
    const length = counted(member.span_stop - member.span_start, "token");
    if (member.role === "publisher") return `answers; its waits (${length})`;
    const readers = this.#session.members.slice(place + 1).filter((later) => later.sync_layers.length);
    return `${length}, to ${listed(readers.map((reader) => reader.node_id)) || "nobody"}`;
  }
}
