// The page's frame: which view is shown, the key, whether the planner answers.

import { h, fill } from "./dom.js";
import { Problem, key, onLink, said } from "./planner.js";
import { fleet } from "./fleet.js";
import { deployment } from "./deployment.js";
import { planner } from "./compare.js";
import { plan, plans } from "./plan.js";

// A view draws itself into the place, once for a form and again and again for what changes.
const VIEWS = [
  [/^\/$/, fleet],
  [/^\/plan$/, planner],
  [/^\/plans$/, plans],
  [/^\/plans\/([^/]+)$/, plan],
  [/^\/deployments\/([^/]+)$/, deployment],
];

const main = document.getElementById("main");
const link = document.getElementById("link");
let leave = new AbortController();

async function show() {
  leave.abort(new DOMException("another view is shown", "AbortError"));
  leave = new AbortController();
  const { signal } = leave;
  const path = location.hash.slice(1) || "/";
  const [found, view] = VIEWS.map(([form, draw]) => [form.exec(path), draw]).find(([f]) => f) ?? [];
  for (const to of document.querySelectorAll("#views a")) {
    const here = to.hash === `#${path}`;
    if (here) to.setAttribute("aria-current", "page");
    else to.removeAttribute("aria-current");
  }
  fill(main, h("p", {}, "Loading…"));
  try {
    if (!view) throw new Problem(404, { title: "Not Found", detail: `there is no page ${path}` });
    await view(main, signal, ...found.slice(1).map(decodeURIComponent));
  } catch (error) {
    if (signal.aborted) return;
    fill(main, said(error), h("p", {}, h("button", { type: "button", click: show }, "Try again")));
  }
}

new MutationObserver(() => {
  const title = main.querySelector("h1")?.textContent;
  document.title = title ? `${title} – HPLB` : "HPLB";
}).observe(main, { childList: true });

addEventListener("hashchange", () => {
  scrollTo(0, 0);
  main.focus({ preventScroll: true });
  show();
});

document.getElementById("skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

onLink((answers) => {
  link.className = answers ? "" : "away";
  link.textContent = answers
    ? `The planner answers again since ${new Date().toLocaleTimeString()}.`
    : "The planner does not answer. What is shown may be old; trying again by itself.";
});

const dialog = document.getElementById("key-dialog");
const input = document.getElementById("key-field");

function askForKey() {
  if (dialog.open) return;
  input.value = "";
  dialog.showModal();
}

function done(change) {
  change?.();
  dialog.close();
  document.getElementById("key").textContent = key.get() ? "Key given" : "Key";
  if (change) show();
}

document.addEventListener("key-wanted", askForKey);
document.getElementById("key").addEventListener("click", askForKey);
document.getElementById("key-forget").addEventListener("click", () => done(key.forget));
document.getElementById("key-close").addEventListener("click", () => done());
document.getElementById("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  done(() => (input.value ? key.set(input.value) : key.forget()));
});
if (key.get()) document.getElementById("key").textContent = "Key given";

show();
