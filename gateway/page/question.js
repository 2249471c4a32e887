/** The question and the choices that go with it. */

import { byId, el, fill } from "./shared/dom.js";
import { request } from "./shared/client.js";

const TOLD = { question: "the question", nothing: "nothing" };

/** Fill in what this gateway offers, from its own description. */
export async function offerChoices() {
  const document = await (await request("openapi.json")).json();
  const schemas = document.components.schemas;
  const codec = schemas.CompressionBody.properties.codec;
  fill(byId("codec"), codec.enum.map((name) => el("option", { selected: name === codec.default }, name)));
  const share = schemas.QueryBody.properties.share.default;
  byId("share").options[0].textContent = `${TOLD[share]} (this gateway's default)`;
  byId("share").dataset.default = share;
  const tokens = schemas.SamplingBody.properties.max_new_tokens;
  const field = byId("tokens");
  const value = field.value === field.defaultValue ? tokens.default : field.value; // somebody may have been quicker
  Object.assign(field, { min: tokens.minimum, max: tokens.maximum, value });
}

/** Offer the joined nodes; what was chosen stays so, if it is still there. */
export function offerNodes(nodes) {
  const ids = nodes.map((node) => node.node_id);
  const known = [...byId("contributor-list").querySelectorAll("input")].map((box) => box.value);
  const publishers = nodes.filter((node) => node.can_publish).map((node) => node.node_id);
  const offered = [...byId("publisher").options].slice(1).map((option) => option.value);
  if (ids.join() === known.join() && publishers.join() === offered.join()) return;
  const chosen = new Set(contributors());
  const publisher = byId("publisher").value;
  fill(
    byId("publisher"),
    el("option", { value: "" }, "the gateway's first"),
    publishers.map((id) => el("option", { value: id, selected: id === publisher }, id)),
  );
  fill(
    byId("contributor-list"),
    ids.map((id) => {
      const box = el("input", { type: "checkbox", value: id });
      box.checked = chosen.has(id);
      return el("label", {}, box, id);
    }),
  );
}

const contributors = () => [...byId("contributor-list").querySelectorAll("input:checked")].map((box) => box.value);

/** The body of /v1/queries that the form stands for. */
export function readQuestion() {
  const share = byId("share").value;
  const chosen = contributors();
  return {
    question: byId("question").value,
    ...(byId("publisher").value && { publisher: byId("publisher").value }),
    ...(chosen.length && { contributors: chosen }),
    ...(share && { share }),
    ...(share === "topic" && { topic: byId("topic").value }),
    plan: byId("plan").value,
    compression: { codec: byId("codec").value || "auto" },
    sampling: { max_new_tokens: Number(byId("tokens").value) },
    reuse: byId("reuse").checked,
    timeline: true,
  };
}

/** What contributors are told of a question with this body. */
export const shareOf = (body) => body.share ?? byId("share").dataset.default;

/** The same for nobody but the publisher: no rows travel, and nobody else is told anything. */
export function withoutOthers({ question, publisher, contributors: chosen, sampling }) {
  const alone = { question, sampling, plan: "none", publisher_plan: "none", share: "nothing" };
  return { ...alone, ...(publisher && { publisher }), ...(chosen && { contributors: chosen }) };
}

/** Wire the form up; `onAsk` gets the body. */
export function bindQuestion(onAsk) {
  byId("share").addEventListener("change", () => {
    const wantsTopic = byId("share").value === "topic";
    byId("topic-box").hidden = !wantsTopic;
    byId("topic").required = wantsTopic;
  });
  byId("question").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) byId("send").click(); // not while it is disabled
  });
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    onAsk(readQuestion());
  });
}
