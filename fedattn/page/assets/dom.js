/** Makes elements. Text is always set as text, never as markup. */

/**
 * An element.
 *
 * @param {string} tag its name, with classes behind dots, such as "p.small.muted".
 * @param {object} attributes attributes; `on` for handlers by event, `style` for properties by name.
 * @param {...(Node|string|null)} children what it holds; null is left out.
 */
export function el(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  const { on = {}, style = {}, ...others } = attributes;
  for (const [event, handler] of Object.entries(on)) element.addEventListener(event, handler);
  for (const [property, value] of Object.entries(style)) element.style.setProperty(property, value);
  for (const [key, value] of Object.entries(others)) {
    if (value !== null && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null));
  return element;
}

/** The element with an id. */
export const byId = (id) => document.getElementById(id);

/** Put other children into an element. */
export function fill(element, ...children) {
  element.replaceChildren(...children.flat().filter((child) => child !== null));
}

/** A table in a box of its own that scrolls; columns are [heading, isNumber]. */
export function table(caption, columns, rows) {
  const kind = ([, isNumber]) => (isNumber ? ".number" : "");
  const head = columns.map((column) => el(`th${kind(column)}`, { scope: "col" }, column[0]));
  const body = rows.map((row) =>
    el("tr", {}, row.map((cell, place) => el(`td${kind(columns[place])}`, {}, cell))),
  );
  return el(
    "div.scroll", { tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption.unseen", {}, caption), el("thead", {}, el("tr", {}, head)), el("tbody", {}, body)),
  );
}
