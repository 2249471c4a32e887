/** The page: nodes, a question, its answer and how it came about. Nothing of it is stored anywhere. */

import { bindSigning } from "./shared/signing.js";
import { bindTheme } from "./shared/theme.js";
import { byId, el, fill } from "./shared/dom.js";
import { lasting, ordinal } from "./shared/format.js";
import { showBytes } from "./bytes.js";
import { Live } from "./live.js";
import { watchNodes } from "./nodes.js";
import { bindQuestion, offerChoices, offerNodes, withoutOthers } from "./question.js";
import { showFacts, showRevealed, showSources } from "./report.js";
import { ask } from "./stream.js";
import { showTimeline } from "./timeline.js";

let stopping = null;
let offered = false;
let lastBody = null;

bindTheme(byId("theme"));
const askForKey = bindSigning(() => look());
const look = watchNodes(onNodes, askForKey);
bindQuestion(askTogether);
byId("stop").addEventListener("click", () => stopping?.abort());
byId("ask-alone").addEventListener("click", askAlone);
look();

function onNodes(nodes) {
  offerNodes(nodes);
  if (!offered) offerChoices().then(() => { offered = true; }, tell);
}

/** Say what went wrong, in words. */
function tell(problem) {
  if (problem.status === 401) {
    askForKey();
    return;
  }
  if (!problem.title) throw problem;
  fill(byId("problem"), el("div.problem", {}, el("strong", {}, problem.title), `: ${problem.detail}. `, problem.remedy));
}

async function askTogether(body) {
  lastBody = body;
  let live = null;
  prepare();
  byId("answer").textContent = "";
  byId("latest").textContent = "";
  await run(body, byId("answer"), {
    session: (data) => { live = new Live(data); say("the nodes compute"); },
    layer: (data) => live.add(data),
    retried: (data) => say(`asking once more, without ${data.without.join(", ")}`),
    report: (data) => {
      live.end(data);
      showFacts(data);
      showSources(data, (id) => live.colourOf(id));
      showRevealed(data, body, live);
      byId("report").hidden = false;
      showBytes(data, live.session);
      showTimeline(data);
      byId("compare").hidden = false;
    },
  });
}

async function askAlone() {
  byId("alone-box").hidden = false;
  byId("together-title").hidden = false;
  byId("answers").className = "halved";
  byId("alone").textContent = "";
  await run(withoutOthers(lastBody), byId("alone"), { session: () => say("the node computes") });
}

/** Put the page back to before an answer. */
function prepare() {
  for (const id of ["facts", "compare", "session", "report", "alone-box", "together-title"]) byId(id).hidden = true;
  byId("answers").className = "";
  byId("answering").hidden = false;
}

/** Ask, and hand each event to its handler; the text goes into `output`. */
async function run(body, output, handlers) {
  stopping = new AbortController();
  setBusy(true);
  fill(byId("problem"));
  output.setAttribute("aria-busy", "true"); // else every token would be read out by itself
  say("asking");
  try {
    for await (const [name, data] of ask(body, stopping.signal)) {
      handlers[name]?.(data);
      if (name === "queued") say(waiting(data));
      if (name === "token") {
        output.append(data.text);
        say("the answer comes");
      }
    }
    say(output.textContent ? "done" : "done: the model said nothing");
  } catch (problem) {
    say(problem.name === "AbortError" ? "stopped" : "no answer");
    if (problem.name !== "AbortError") tell(problem);
  } finally {
    output.setAttribute("aria-busy", "false");
    setBusy(false);
  }
}

/** Such as "waiting: 3rd of 7, about 12 s". */
function waiting({ place, of, estimate_s }) {
  return `waiting: ${ordinal(place)} of ${of}${estimate_s === null ? "" : `, about ${lasting(estimate_s)}`}`;
}

function say(words) {
  if (byId("state").textContent !== words) byId("state").textContent = words;
}

function setBusy(isBusy) {
  const hadFocus = document.activeElement === byId(isBusy ? "send" : "stop");
  byId("send").disabled = isBusy;
  byId("ask-alone").disabled = isBusy;
  byId("stop").hidden = !isBusy;
  if (hadFocus) byId(isBusy ? "stop" : "send").focus();
}
