/** Requests to the server of this page, with the key that this tab was given. */

const STORED = "fedattn-key";

const REMEDIES = {
  401: "Enter a key that is good here.",
  403: "Whoever runs this can allow it.",
  413: "Ask a shorter question.",
  429: "You have had your share for now, or all places are taken.",
  503: "Nobody can answer just now.",
};

/** What went wrong, in words: `title`, `detail` and `remedy` are for people. */
export class Problem extends Error {
  constructor(status, title, detail, remedy) {
    super(`${title}: ${detail}`);
    Object.assign(this, { status, title, detail, remedy });
  }
}

export const key = () => sessionStorage.getItem(STORED);
export const setKey = (value) => sessionStorage.setItem(STORED, value);
export const forgetKey = () => sessionStorage.removeItem(STORED);

/** What an error document says. */
export function problemOf(document, retryAfter = null) {
  const remedies = [REMEDIES[document.status] ?? ""];
  if (retryAfter !== null) remedies.push(`Try again in ${retryAfter} s.`);
  return new Problem(document.status, document.title, document.detail, remedies.join(" ").trim());
}

/**
 * Send a request.
 *
 * @param {string} path relative to the page.
 * @param {object} options as of fetch; `json` is a body.
 * @returns {Promise<Response>} an answer that is no error.
 * @throws {Problem} whatever went wrong.
 */
export async function request(path, { json, headers = {}, ...options } = {}) {
  const all = { ...headers };
  if (key()) all.Authorization = `Bearer ${key()}`;
  if (json !== undefined) {
    all["Content-Type"] = "application/json";
    options = { method: "POST", body: JSON.stringify(json), ...options };
  }
  let response;
  try {
    response = await fetch(path, { cache: "no-store", ...options, headers: all });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "No connection", "the server of this page cannot be reached", "See that it runs, then try again.");
  }
  if (response.ok) return response;
  const document = await response.json().catch(() => ({ status: response.status, title: response.statusText, detail: "no more is known" }));
  throw problemOf(document, response.headers.get("Retry-After"));
}
