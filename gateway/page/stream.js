/** Server-sent events of one query, read from the answer to a POST. */

import { Problem, problemOf, request } from "./shared/client.js";

/**
 * Ask; yields [name, data] of each event up to the report.
 *
 * @param {object} body of /v1/queries, without `stream`.
 * @param {AbortSignal} signal stops the query, at the publisher too.
 * @throws {Problem} before the first event, or instead of the last.
 */
export async function* ask(body, signal) {
  const response = await request("v1/queries", { json: { ...body, stream: true }, signal });
  for await (const [name, data] of events(response.body)) {
    const value = JSON.parse(data);
    if (name === "error") throw problemOf(value);
    yield [name, value];
    if (name === "report") return;
  }
  throw cutOff();
}

const cutOff = () => new Problem(0, "Cut off", "the answer ended before its report", "Ask again.");

/** What comes next; a connection that breaks is a problem like any other. */
async function next(reader) {
  try {
    return await reader.read();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw cutOff();
  }
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let piece = await next(reader); !piece.done; piece = await next(reader)) {
    const blocks = (rest + piece.value).split(/\r\n\r\n|\n\n/);
    rest = blocks.pop();
    for (const block of blocks) {
      const event = parse(block);
      if (event) yield event;
    }
  }
}

function parse(block) {
  const fields = { event: "", data: [] };
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = line.match(/^(\w+): ?(.*)$/s) ?? [];
    if (name === "event") fields.event = value;
    if (name === "data") fields.data.push(value);
  }
  return fields.event ? [fields.event, fields.data.join("\n")] : null;
}
