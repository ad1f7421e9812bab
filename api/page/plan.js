// Plans: the list, and one of them drawn, with the form that makes it live.

import { counted, field, figures, fill, h, ms, percent, picture, plural, short, sure, table, time } from "./dom.js";
import { ask, every, get, getOnce, said } from "./planner.js";
import { worth } from "./words.js";

const PAGE = 50;

export async function plans(place, signal) {
  const { plans: found, total } = await get(`plans?limit=${PAGE}`, signal);
  const rows = found.map((plan) => [
    h("a", { href: `#/plans/${plan.id}` }, short(plan.id)),
    time(plan.created_at),
    plan.profile,
    Object.entries(plan.devices)
      .map(([kind, number]) => `${number} x ${kind}`)
      .join(", "),
    `${plan.phase}, ${plan.context_tokens.toLocaleString("en")} tokens, ${plan.deployment}`,
    plan.solver,
    ms(plan.makespan_s),
    percent(plan.gap),
    percent(plan.bubble_ratio),
  ]);
  const heads = ["Plan", "Made", "Profile", "Devices", "For", "Solver", "Makespan", "Gap", "Idle"];
  fill(
    place,
    h("h1", {}, "Plans"),
    total === 0
      ? h("p", {}, "None is stored. ", h("a", { href: "#/plan" }, "Make one"), ".")
      : table(`The newest ${rows.length} of ${plural(total, "plan")}`, heads, rows),
  );
}

export async function plan(place, signal, id) {
  const found = await getOnce(`plans/${id}`, signal);
  const [drawn, nodes, deployments] = await Promise.all([
    getOnce(`plans/${id}/picture`, signal),
    every("nodes", signal),
    every("deployments", signal),
  ]);
  const at = h("div", { id: "layer-picture" });
  fill(
    place,
    h("h1", {}, `Plan ${short(found.id)}`),
    h("p", { class: "worth" }, worth(found)),
    facts(found),
    found.warnings.length > 0 && h("ul", {}, found.warnings.map((w) => h("li", {}, w))),
    h("h2", {}, "Who computes what"),
    picture(drawn),
    found.layers.length > 1 && layers(found, at, signal),
    at,
    devices(found),
    h("h2", {}, "Deploy"),
    deploy(found, nodes, deployments),
  );
}

function facts(found) {
  const step = found.workload;
  return figures([
    ["Profile", `${found.profile.name}${found.profile.synthetic ? " (synthetic)" : ""}`],
    ["Devices", counted(found.devices)],
    ["For", `${step.phase} of ${step.batch_size} x ${step.context_tokens.toLocaleString("en")} tokens`],
    ["Deployment", step.deployment],
    ["Makespan", `${ms(found.makespan_s)}, predicted`],
    ["At least", `${ms(found.lower_bound_s)}, proved`],
    ["Gap", `${percent(found.gap)}, ${found.status}`],
    ["Idle", percent(found.bubble_ratio)],
    ["Solver", `${found.solver}, ${found.solve_s.toFixed(2)} s`],
    ["KV slots", found.slots && `${found.slots} a device, ${found.padding?.padded ?? 0} empty`],
    ["Stock engine", `${found.stock_compatible ? "yes" : "no"}: ${found.stock_reason}`],
    ["Loss", found.loss && `${found.loss.nats.toFixed(4)} nats a token, at most ${found.loss.bound}`],
  ]);
}

/** Any layer large, picked by number. */
function layers(found, at, signal) {
  const last = found.layers.length - 1;
  const input = h("input", { id: "layer", type: "number", min: "0", max: String(last), value: "0" });
  const show = async (event) => {
    event.preventDefault();
    try {
      fill(at, picture(await getOnce(`plans/${found.id}/picture?layer=${input.value}`, signal)));
    } catch (error) {
      fill(at, said(error));
    }
  };
  const label = `A layer by itself (0 to ${last})`;
  return h(
    "form",
    { class: "row", submit: show },
    field(label, input),
    h("button", { type: "submit" }, "Show the layer"),
  );
}

/** The picture's figures for those who do not see it. */
function devices(found) {
  const total = found.layers.reduce((sum, layer) => sum + layer.makespan_s, 0);
  const rows = found.devices.map((kind, device) => {
    const busy = found.layers.reduce((sum, layer) => sum + layer.loads_s[device], 0);
    const heads = found.layers.reduce(
      (sum, layer) => sum + layer.heads.filter((e) => e.some((x) => x.device === device)).length,
      0,
    );
    return [`${device} ${kind}`, ms(busy), ms(total - busy), percent(busy / total), String(heads)];
  });
  const heads = ["Device", "Busy", "Idle", "Busy share", "Heads, all layers"];
  return h(
    "details",
    {},
    h("summary", {}, "The same as a table"),
    table("Each device through all layers, predicted", heads, rows),
  );
}

function deploy(found, nodes, deployments) {
  const live = nodes.filter((node) => node.live);
  if (live.length === 0) return h("p", {}, "No node holds a lease: there is nowhere to deploy to.");
  const told = h("div", {});
  const wanted = proposed(found, live);
  const name = h("input", { id: "deployment-name", required: true, value: deployments[0]?.name ?? "main" });
  const rounds = h("input", { id: "rounds", type: "number", min: "1", max: "100", value: "3" });
  const every = h("input", { id: "every", type: "number", min: "0.1", step: "any" });
  const refine = h("input", { id: "refine", type: "checkbox", checked: true });
  const boxes = live.map((node) =>
    h("input", {
      id: `on-${node.node_id}`,
      type: "checkbox",
      value: node.node_id,
      checked: wanted.has(node.node_id),
    }),
  );
  const go = async (event) => {
    event.preventDefault();
    const chosen = boxes.filter((box) => box.checked).map((box) => box.value);
    const old = deployments.find((d) => d.name === name.value);
    const words = old
      ? `Replace generation ${old.generation} of ${name.value} by this plan on ${chosen.join(", ")}?`
      : `Make this plan live as ${name.value} on ${chosen.join(", ")}?`;
    if (!(await sure(words, "Deploy"))) return;
    const body = {
      plan_id: found.id,
      nodes: chosen,
      rounds: Number(rounds.value),
      every_s: every.value ? Number(every.value) : null,
      refine: refine.checked,
    };
    try {
      await ask(`deployments/${encodeURIComponent(name.value)}`, { method: "PUT", body });
      location.hash = `#/deployments/${name.value}`;
    } catch (error) {
      fill(told, said(error));
    }
  };
  return h(
    "form",
    { submit: go },
    field("Deployment", name, "An existing name gets a new generation."),
    h(
      "fieldset",
      {},
      h("legend", {}, `Nodes, for ${counted(found.devices)}`),
      live.map((node, at) =>
        h("label", {}, boxes[at], ` ${node.node_id}: ${counted(node.devices)}`),
      ),
    ),
    field("Rounds to measure", rounds),
    field("Then one more every so many seconds", every, "Empty: no more."),
    h("p", {}, h("label", {}, refine, " Plan again by itself when measurements say so")),
    h("button", { type: "submit", class: "main", id: "deploy" }, "Deploy"),
    told,
  );
}

/** Nodes that make up the plan's devices in its order; none where these do not. */
function proposed(found, live) {
  const names = new Set();
  let taken = 0;
  for (const node of live) {
    const next = found.devices.slice(taken, taken + node.devices.length);
    if (next.join() !== node.devices.join()) continue;
    names.add(node.node_id);
    taken += node.devices.length;
  }
  return taken === found.devices.length ? names : new Set();
}
