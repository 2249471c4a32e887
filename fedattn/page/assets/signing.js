/** Asking for a key where the server wants one. It stays in this tab, and goes when the tab does. */

import { byId } from "./dom.js";
import { forgetKey, key, setKey } from "./client.js";

/**
 * Show the form when it is wanted.
 *
 * @param {() => void} onKey called when there is a key to try.
 * @returns {() => void} call it when the server refused who asks.
 */
export function bindSigning(onKey) {
  const panel = byId("signing");
  const field = byId("key");
  const out = byId("sign-out");
  const hidden = () => [...document.querySelectorAll("[data-signed]")];

  function show(isSigned) {
    panel.hidden = isSigned;
    out.hidden = !isSigned || !key();
    for (const element of hidden()) element.hidden = !isSigned;
    for (const element of document.querySelectorAll("[data-open]")) element.hidden = !isSigned || key() !== null;
  }
  function ask() {
    if (!panel.hidden) return; // or what is being typed would be lost
    const wasRefused = key() !== null;
    forgetKey();
    show(false);
    byId("signing-why").textContent = wasRefused ? "That key is not good here: mistyped, revoked or expired." : "";
    field.value = "";
    field.focus();
  }
  byId("signing-form").addEventListener("submit", (event) => {
    event.preventDefault();
    if (!field.value.trim()) return;
    setKey(field.value.trim());
    field.value = "";
    show(true);
    onKey();
  });
  out.addEventListener("click", () => {
    forgetKey();
    location.reload(); // nothing of what was shown stays
  });
  show(true);
  return ask;
}
