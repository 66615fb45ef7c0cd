// Building and updating elements, and the few widgets that every page has.
// Refuses: markup from strings. Everything a peer may have named reaches the page through textContent or
// setAttribute, so a stream called `<script>` is only a funny name.

import { t, fillWords, switchLanguage } from "./words.js";

/** An element: `h("a", { href, class, onclick }, "text", node)`. Null children and false attributes are left out. */
export function h(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

export const byId = (id) => document.getElementById(id);

/** Sets a text only when it changed: a selection or a screen reader is not disturbed once a second. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const lists = new WeakMap();

/**
 * Makes the children of `parent` follow `items`. `make(item)` gives `{ node, update(item) }` once per key; nodes stay
 * in the document while their key lives, so focus, selection and opened details survive a refresh.
 */
export function keyed(parent, items, keyOf, make) {
  // The first call also clears what the page said before there was data.
  if (!lists.has(parent)) parent.replaceChildren();
  const old = lists.get(parent) ?? new Map();
  const now = new Map();
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    if (now.has(key)) continue;
    const entry = old.get(key) ?? make(item);
    entry.update(item);
    now.set(key, entry);
    if (entry.node === place) place = place.nextSibling;
    else parent.insertBefore(entry.node, place);
  }
  for (const [key, entry] of old) if (!now.has(key)) entry.node.remove();
  lists.set(parent, now);
}

/** Forgets what `keyed` built, for a change of language. */
export function clearKeyed(parent) {
  lists.delete(parent);
  parent.replaceChildren();
}

// The clipboard API is absent on plain http pages outside localhost, which is where a gateway in a LAN is used;
// the old command still works there.
async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = h("textarea", { class: "offscreen", readonly: true, "aria-hidden": "true" });
    area.value = text;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    return done;
  }
}

/** A label, a value and a button that copies the value. `set(value)` changes it. */
export function copyRow(label, value) {
  const code = h("code", { tabindex: "0" }, value);
  const button = h("button", { type: "button", class: "small", "aria-label": `${t("copy")}: ${label}` }, t("copy"));
  button.addEventListener("click", async () => {
    const done = await copyText(code.textContent);
    button.textContent = t(done ? "copied" : "copyFailed");
    setTimeout(() => { button.textContent = t("copy"); }, 1500);
  });
  return {
    node: h("div", { class: "copy-row" }, h("span", { class: "label" }, label), code, button),
    set: (text) => setText(code, text),
  };
}

/** Fills a `<dl>` with `[term, value]` rows; a null value leaves the row out. */
export function facts(list, rows) {
  const present = rows.filter(([, value]) => value !== null && value !== undefined);
  keyed(list, present, ([term]) => term, ([term]) => {
    const value = h("dd");
    return { node: h("div", {}, h("dt", {}, term), value), update: (row) => setText(value, row[1]) };
  });
}

/** Runs `work` now and every `everyMs` while the page is visible, one run at a time. */
export function poll(everyMs, work) {
  let busy = false;
  const tick = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try { await work(); } finally { busy = false; }
  };
  tick();
  setInterval(tick, everyMs);
  document.addEventListener("visibilitychange", tick);
  return tick;
}

const scripts = new Map();

/** Loads a script that is no module, once. */
export function loadScript(src) {
  if (!scripts.has(src)) {
    scripts.set(src, new Promise((resolve, reject) => {
      const node = h("script", { src, onload: resolve, onerror: () => {
        scripts.delete(src);
        node.remove();
        reject(new Error(t("noServer")));
      } });
      document.head.append(node);
    }));
  }
  return scripts.get(src);
}

/** What every page does first: words and the language button. */
export function openPage() {
  fillWords();
  const button = byId("language");
  button?.addEventListener("click", switchLanguage);
}

/** The message over the picture: a line, a second line, and a button that starts again. Empty text hides it. */
export function overlay(onAgain) {
  const button = byId("again");
  button.addEventListener("click", onAgain);
  return ({ text = "", more = "", again = "", busy = false }) => {
    byId("message").hidden = !text && !again;
    byId("message").dataset.busy = String(busy);
    setText(byId("message-text"), text);
    setText(byId("message-more"), more);
    button.hidden = !again;
    setText(button, again);
  };
}
