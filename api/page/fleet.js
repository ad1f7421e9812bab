// The fleet: what is deployed, first what it gains end to end, and which nodes are there.

import { counted, figures, fill, h, percent, plural, table, time } from "./dom.js";
import { every, getOnce, sleep } from "./planner.js";
import { judged, standing, worth } from "./words.js";

const EVERY_MS = 2000;

export async function fleet(place, signal) {
  let before = "";
  for (;;) {
    const [deployments, nodes] = await Promise.all([
      every("deployments", signal),
      every("nodes", signal),
    ]);
    // Leases are renewed all the time: their ends are not worth drawing the page anew.
    const now = JSON.stringify([deployments, nodes.map(({ lease_expires_at: _, ...n }) => n)]);
    if (now !== before) {
      const plans = await Promise.all(
        deployments.map((d) => getOnce(`plans/${d.plan_id}`, signal)),
      );
      draw(place, deployments, plans, nodes);
      before = now;
    }
    await sleep(EVERY_MS, signal);
  }
}

function draw(place, deployments, plans, nodes) {
  fill(
    place,
    h("h1", {}, "Fleet"),
    h("h2", {}, "Deployments"),
    deployments.length === 0 &&
      h("p", {}, "Nothing is deployed. ", h("a", { href: "#/plan" }, "Make a plan"), " first."),
    deployments.map((d, at) => card(d, plans[at])),
    h("h2", {}, "Nodes"),
    nodes.length === 0
      ? h("p", {}, "No node has registered. ", h("code", {}, "hplb executor"), " starts one.")
      : table(
          `${plural(nodes.length, "node")}, ${nodes.filter((n) => n.live).length} with a lease`,
          ["Node", "Lease", "Devices", "Runs", "Back end", "Versions"],
          nodes.map((node) => row(node, deployments)),
        ),
  );
}

function card(view, plan) {
  const { drift } = view;
  return h(
    "article",
    { class: "card" },
    h("h3", {}, h("a", { href: `#/deployments/${view.name}`, id: `to-${view.name}` }, view.name)),
    h("p", { class: "worth" }, worth(plan)),
    figures([
      ...standing(view),
      ["Measured / predicted", drift === null ? null : drift.toFixed(2)],
      ["Idle, measured", view.measured && percent(view.measured.bubble_ratio)],
      ["Nodes", view.nodes.join(", ")],
    ]),
    h("p", {}, judged(view)),
    view.decision && h("p", { class: "hint" }, `Last decision: ${view.decision}`),
  );
}

function row(node, deployments) {
  const { active } = node;
  const wanted = deployments.find((d) => d.nodes.includes(node.node_id));
  const behind = wanted && active?.generation !== wanted.generation;
  return [
    node.node_id,
    h("span", { class: node.live ? "good" : "bad" }, lease(node)),
    counted(node.devices),
    [
      active ? `${active.deployment}, generation ${active.generation}` : "nothing",
      behind && active ? `; ${wanted.name} is at ${wanted.generation}` : "",
      node.error ? h("p", { class: "bad" }, node.error) : "",
    ],
    node.backend,
    Object.entries(node.versions)
      .map((pair) => pair.join(" "))
      .join(", ") || "–",
  ];
}

const lease = (node) => (node.live ? "live" : `ran out ${time(node.lease_expires_at)}`);
