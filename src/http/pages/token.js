// Asking for the API's token where the API wants one. Pages work without: streams play by their own keys.
// Refuses: keeping the token (api.js does).

import { t } from "./words.js";
import { h } from "./ui.js";
import { keepApiToken } from "./api.js";

/** Whether `problem` is the API asking for a token (or for another one). */
export const isLocked = (problem) => problem?.status === 401;

/** Replaces the content of `box` by the server's own words and a field; `onGiven()` is called when there is something to try. */
export function askForToken(box, problem, onGiven) {
  // A form that somebody types in is left alone.
  if (box.querySelector("form")) return;
  const field = h("input", { type: "password", name: "token", autocomplete: "off", "aria-label": t("apiToken"), placeholder: t("apiToken") });
  const form = h("form", { class: "row" }, field, h("button", { type: "submit" }, t("use")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const token = field.value.trim();
    if (!token) return field.focus();
    keepApiToken(token);
    box.replaceChildren();
    onGiven();
  });
  box.replaceChildren(h("p", { class: "muted" }, t("locked")), h("p", { class: "muted" }, problem.detail || problem.title), form);
}
