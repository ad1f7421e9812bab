// A request and its methods beside each other, before anything is applied.

import { field, fill, h, ms, percent, picture, table } from "./dom.js";
import { every, get, said, solve } from "./planner.js";
import { worth } from "./words.js";

const METHODS = {
  contiguous: "heads in the file's order",
  snake: "dealt out back and forth",
  greedy_equal: "largest first, equal counts",
  greedy: "largest first",
  ilp: "integer program",
  cp_sat: "constraint search",
  auto: "cheapest step first, to the proof",
  divided: "the same, heads may be divided",
};
const CHOSEN = ["contiguous", "greedy", "auto", "divided"];

export async function planner(place, signal) {
  const [{ profiles }, { rates }, nodes] = await Promise.all([
    get("profiles", signal),
    get("cost-models", signal),
    every("nodes", signal),
  ]);
  const live = nodes.filter((node) => node.live).flatMap((node) => node.devices);
  const kinds = [...new Set([...live, ...rates.map((r) => r.device)])];
  const form = inputs(profiles, kinds, live);
  const found = h("section", { id: "found", "aria-label": "Plans made" });
  const cancel = h("button", { type: "button", id: "cancel", hidden: true }, "Stop");
  const made = h(
    "form",
    {
      submit: async (event) => {
        event.preventDefault();
        const stop = new AbortController();
        signal.addEventListener("abort", () => stop.abort(signal.reason));
        cancel.hidden = false;
        cancel.onclick = () => stop.abort(new DOMException("stopped", "AbortError"));
        await compare(found, form, stop.signal);
        cancel.hidden = true;
      },
    },
    form.fields,
    h(
      "p",
      { class: "buttons" },
      h("button", { type: "submit", class: "main", id: "compare" }, "Plan and compare"),
      cancel,
    ),
  );
  fill(place, h("h1", {}, "Plan and compare"), made, found);
}

function inputs(profiles, kinds, live) {
  const options = (of) => of.map(([value, words]) => h("option", { value }, words));
  const profile = h(
    "select",
    { id: "profile" },
    options(
      profiles.map((p) => [
        p.name,
        `${p.name}: ${p.layers} layers, ${p.query_heads} heads${p.synthetic ? ", synthetic" : ""}`,
      ]),
    ),
  );
  const kind = h("select", { id: "kind" }, options(kinds.map((k) => [k, k])));
  const same = live.length > 0 && live.every((k) => k === live[0]);
  const gpus = h("input", { id: "gpus", type: "number", min: "1", required: true, value: String(same ? live.length : 8) });
  const context = h("input", { id: "context", type: "number", min: "1", required: true, value: "131072" });
  const phase = h("select", { id: "phase" }, options([["prefill", "prefill"], ["decode", "decode"]]));
  const where = h(
    "select",
    { id: "where" },
    options([
      ["disaggregated", "disaggregated: attention by itself"],
      ["tensor_parallel", "tensor parallel: with the rest"],
    ]),
  );
  const slots = h("input", { id: "slots", pattern: "auto|[0-9]*", autocomplete: "off" });
  const limit = h("input", { id: "limit", type: "number", min: "0.05", step: "any", required: true, value: "5" });
  const more = h("textarea", { id: "more", rows: "4", spellcheck: "false", autocomplete: "off" });
  const methods = Object.keys(METHODS).map((name) =>
    h("input", { id: `by-${name}`, type: "checkbox", value: name, checked: CHOSEN.includes(name) }),
  );
  const fields = [
    h(
      "div",
      { class: "grid" },
      field("Profile", profile),
      field("Device type", kind),
      field("Devices", gpus, same ? "As many as the live nodes have." : null),
      field("Context, tokens", context),
      field("Phase", phase),
      field("Deployment", where),
      field("KV slots a device", slots, "Empty, a number or auto; tensor parallel alone."),
      field("Seconds a method", limit),
    ),
    h(
      "fieldset",
      { class: "grid" },
      h("legend", {}, "Methods"),
      methods.map((box) =>
        h("label", {}, box, " ", h("strong", {}, box.value), ` ${METHODS[box.value]}`),
      ),
    ),
    h(
      "details",
      {},
      h("summary", {}, "More of the request, as JSON"),
      field("Further fields", more, 'For example {"budget": {"policy": "dense"}}; they go over those above.'),
    ),
  ];
  const request = (method) => {
    const placement = {
      ...(method === "divided" ? { divisible: true } : {}),
      ...(slots.value ? { slots: slots.value === "auto" ? "auto" : Number(slots.value) } : {}),
    };
    const further = more.value.trim() ? JSON.parse(more.value) : {};
    return {
      profile: profile.value,
      gpus: Number(gpus.value),
      device_type: kind.value,
      context_tokens: Number(context.value),
      phase: phase.value,
      deployment: where.value,
      time_limit_s: Number(limit.value),
      method: method === "divided" ? "auto" : method,
      ...further,
      placement: { ...placement, ...further.placement },
    };
  };
  const chosen = () => methods.filter((box) => box.checked).map((box) => box.value);
  return { fields, request, chosen };
}

/** Every method's plan, one after the other; then all of them side by side. */
async function compare(place, form, signal) {
  const methods = form.chosen();
  if (methods.length === 0) {
    fill(place, said(new Error("Choose a method at least.")));
    return;
  }
  let requests;
  try {
    requests = methods.map(form.request);
  } catch (error) {
    fill(place, said(new Error(`More of the request: this is not JSON: ${error.message}`)));
    return;
  }
  const bar = h("progress", { max: String(methods.length), value: "0", "aria-label": "Plans made" });
  const now = h("p", { role: "status" });
  const refused = h("div", {});
  fill(place, h("h2", {}, "Comparison"), bar, now, refused);
  const plans = [];
  for (const [at, method] of methods.entries()) {
    now.textContent = `${method}: asked (${at + 1} of ${methods.length})`;
    try {
      plans.push([method, await solve(requests[at], (far) => told(now, method, far), signal)]);
    } catch (error) {
      if (signal.aborted) {
        now.textContent = "Stopped.";
        break;
      }
      refused.append(h("h3", {}, method), said(error));
    }
    bar.value = at + 1;
  }
  bar.remove();
  if (plans.length === 0) {
    now.textContent = "No plan was made.";
    return;
  }
  if (!signal.aborted) now.textContent = `${plans.length} of ${methods.length} methods made a plan.`;
  try {
    await beside(place, plans);
  } catch (error) {
    place.append(said(error));
  }
}

function told(now, method, far) {
  const best =
    far.makespan_s === null ? "" : `, best ${ms(far.makespan_s)}, gap ${percent(far.gap)}`;
  now.textContent = `${method}: ${far.status} for ${far.elapsed_s.toFixed(1)} s${best}`;
}

async function beside(place, plans) {
  const query = plans.map(([, plan]) => `plan=${plan.id}`).join("&");
  const [{ rows }, drawn] = await Promise.all([
    get(`comparison?${query}`),
    get(`comparison/picture?${query}`),
  ]);
  const best = plans.reduce((a, b) => (b[1].makespan_s < a[1].makespan_s ? b : a));
  const cells = rows.map((row, at) => [
    h("a", { href: `#/plans/${row.plan_id}` }, plans[at][0]),
    ms(row.makespan_s),
    row.makespan_over_bound.toFixed(4),
    percent(row.bubble_ratio),
    String(row.kv_copies),
    gain(plans[at][1]),
    `${row.solve_s.toFixed(2)} s`,
  ]);
  const heads = ["Method", "Makespan", "/ bound", "Idle", "K/V copies", "Step faster by", "Solved in"];
  place.append(
    h("p", { class: "worth" }, `Best, ${best[0]}: ${worth(best[1])}`),
    table("Predicted; the bound is the best that any method proved", heads, cells),
    picture(drawn),
    warned(rows, plans),
    h(
      "p",
      {},
      h("a", { class: "button main", id: "open-best", href: `#/plans/${best[1].id}` }, `Open the plan by ${best[0]}`),
    ),
  );
}

/** What plans warn of, and whose they are. */
function warned(rows, plans) {
  const said = rows.flatMap((row, at) => row.warnings.map((words) => `${plans[at][0]}: ${words}`));
  return said.length > 0 ? h("ul", {}, said.map((words) => h("li", {}, words))) : "";
}

const gain = (plan) => (plan.whole_step ? percent(plan.whole_step.gain) : "unknown");
