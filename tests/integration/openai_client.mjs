// Asks a gateway with OpenAI's JavaScript client, and prints what it got as JSON.
// node openai_client.mjs FOLDER_WITH_THE_PACKAGE BASE_URL MODEL
import { createRequire } from "node:module";

const [folder, baseURL, model] = process.argv.slice(2);
const { OpenAI } = createRequire(`${folder}/`)("openai");
const client = new OpenAI({ baseURL, apiKey: "none", maxRetries: 0 });
const asked = { model, messages: [{ role: "user", content: "Which ward?" }] };

async function failure(asking) {
  try {
    return await asking;
  } catch (error) {
    return [error.constructor.name, error.status, error.code, error.param];
  }
}

const done = await client.chat.completions.create(asked);
let streamed = "";
for await (const chunk of await client.chat.completions.create({ ...asked, stream: true })) {
  streamed += chunk.choices[0]?.delta?.content ?? "";
}
const kinds = [];
for await (const event of await client.responses.create({ model, input: "Which ward?", stream: true })) {
  kinds.push(event.type);
}
console.log(JSON.stringify({
  chat: done.choices[0].message.content,
  session: done.fedattn.session_id,
  streamed,
  response: (await client.responses.create({ model, input: "Which ward?" })).output_text,
  lastEvent: kinds.at(-1),
  models: (await client.models.list()).data.map((entry) => entry.id),
  retrieved: (await client.models.retrieve(model)).id,
  unknown: await failure(client.models.retrieve("nowhere")),
  wrong: await failure(client.chat.completions.create({ ...asked, n: 2 })),
}));
