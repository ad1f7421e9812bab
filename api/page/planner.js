// Speaks with the planner: the key, problems as errors, patience while it is away.

import { h } from "./dom.js";

const KEY = "hplb.key";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 5000;
const FOLLOW_MS = 400;

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** What the service refused, as its problem document says. */
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail ?? `the planner answered ${status}`);
    this.status = status;
    this.title = body.title ?? "Error";
    this.fields = body.errors ?? [];
  }
}

/** No answer at all: the planner is away, or the way to it is. */
export class Away extends Error {}

const watchers = new Set();

/** Be told whether the planner answers, at every change. */
export function onLink(watcher) {
  watchers.add(watcher);
}

let answers = true;

function linked(now) {
  if (now === answers) return;
  answers = now;
  for (const watcher of watchers) watcher(now);
}

export function sleep(milliseconds, signal) {
  return new Promise((done, fail) => {
    const timer = setTimeout(done, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      fail(signal.reason);
    });
  });
}

async function once(path, { method = "GET", body, prefer, signal }) {
  const headers = {};
  if (key.get()) headers.Authorization = `Bearer ${key.get()}`;
  if (prefer) headers.Prefer = prefer;
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    const content = body === undefined ? undefined : JSON.stringify(body);
    response = await fetch(path, { method, headers, body: content, signal, cache: "no-store" });
  } catch (error) {
    if (signal?.aborted) throw signal.reason;
    linked(false);
    throw new Away("The planner does not answer; nothing is known to have changed.");
  }
  const { status } = response;
  if (method === "GET" && status >= 502 && status <= 504) {
    linked(false);
    throw new Away("The planner or its database does not answer.");
  }
  linked(true);
  const kind = response.headers.get("content-type") ?? "";
  if (response.ok) {
    const found = kind.includes("json") ? await response.json() : await response.text();
    return { status, found };
  }
  const told = kind.includes("json") ? await response.json() : {};
  if (status === 401) document.dispatchEvent(new Event("key-wanted"));
  throw new Problem(status, told);
}

/** One request. `patient`: asked again while there is no answer, for what may be asked twice. */
export async function ask(path, options = {}) {
  let wait = FIRST_WAIT_MS;
  for (;;) {
    try {
      return await once(path, options);
    } catch (error) {
      if (!(error instanceof Away) || !options.patient) throw error;
      await sleep(wait, options.signal);
      wait = Math.min(2 * wait, LONGEST_WAIT_MS);
    }
  }
}

export const get = async (path, signal) => (await ask(path, { signal, patient: true })).found;

/** All of a list that comes in pages. */
export async function every(what, signal) {
  const all = [];
  for (;;) {
    const page = await get(`${what}?offset=${all.length}`, signal);
    all.push(...page[what]);
    if (page[what].length === 0 || all.length >= page.total) return all;
  }
}

const kept = new Map();

/** What never changes at its address: a plan, a past generation. Asked for once. */
export async function getOnce(path, signal) {
  if (!kept.has(path)) kept.set(path, await get(path, signal));
  return kept.get(path);
}

/** A plan for a request; `told` hears how far its solve is. Goes on over a planner's restart. */
export async function solve(request, told, signal) {
  for (;;) {
    const prefer = "respond-async";
    const asked = { method: "POST", body: request, prefer, signal, patient: true };
    const { status, found } = await ask("plan", asked);
    if (status === 200) return found;
    const plan = await followed(found.id, told, signal);
    if (plan) return plan;
    // A restarted planner has forgotten the solve, and takes the same request anew.
  }
}

async function followed(id, told, signal) {
  for (;;) {
    try {
      const { status, found } = await ask(`plans/${id}`, { signal, patient: true });
      if (status === 200) return found;
      told(found);
    } catch (error) {
      if (error instanceof Problem && error.status === 404) return null;
      throw error;
    }
    await sleep(FOLLOW_MS, signal);
  }
}

/** An error as people read it: the problem's title and detail, bad fields by name. */
export function said(error) {
  const fields = (error.fields ?? []).filter((f) => !error.message.includes(f.message));
  return h(
    "div",
    { class: "problem", role: "alert" },
    h("p", {}, h("strong", {}, error.title ? `${error.title}: ` : ""), error.message),
    fields.length > 0 && h("ul", {}, fields.map((f) => h("li", {}, `${f.field}: ${f.message}`))),
  );
}
