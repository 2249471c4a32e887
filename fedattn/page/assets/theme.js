/** Light or dark: as the system says, until the button says otherwise; kept for this tab only. */

const STORED = "fedattn-theme";
const system = matchMedia("(prefers-color-scheme: dark)");

/** Called with the theme whenever it changes. */
const listeners = new Set();

const current = () => sessionStorage.getItem(STORED) ?? (system.matches ? "dark" : "light");

function apply() {
  const chosen = sessionStorage.getItem(STORED);
  if (chosen) document.documentElement.dataset.theme = chosen;
  for (const listener of listeners) listener();
}

export const onTheme = (listener) => listeners.add(listener);

/** Make a button switch it. */
export function bindTheme(button) {
  const describe = () => {
    button.textContent = current() === "dark" ? "Light" : "Dark";
    button.setAttribute("aria-label", `Switch to the ${button.textContent.toLowerCase()} theme`);
  };
  button.addEventListener("click", () => {
    sessionStorage.setItem(STORED, current() === "dark" ? "light" : "dark");
    apply();
  });
  onTheme(describe);
  describe();
}

/** The value of a colour of look.css now, for what is drawn and not styled. */
export function colour(name) {
  const probe = document.body.appendChild(document.createElement("span"));
  probe.style.color = `var(--${name})`;
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

system.addEventListener("change", apply);
apply();
