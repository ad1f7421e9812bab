// One deployment: predicted beside measured over its generations, drift, and the way back.

import { figures, fill, h, ms, percent, picture, plural, shape, short, sure, table, time } from "./dom.js";
import { ask, get, getOnce, said, sleep } from "./planner.js";
import { judged, requests, standing, worth } from "./words.js";

const EVERY_MS = 2000;
const SHOWN = 12;
/** Pixels that a time of day needs. */
const LABEL = 56;

export async function deployment(place, signal, name) {
  const path = `deployments/${name}`;
  let before = "";
  for (;;) {
    const view = await get(path, signal);
    const now = JSON.stringify(view);
    if (now !== before) {
      const plan = await getOnce(`plans/${view.plan_id}`, signal);
      const past = view.history.slice(-SHOWN).filter((g) => g.generation !== view.generation);
      const views = await Promise.all(
        past.map((g) => getOnce(`${path}?generation=${g.generation}`, signal)),
      );
      const drawn = view.measured && !view.traffic ? await get(`${path}/picture`, signal) : null;
      draw(place, view, plan, [...views, view], drawn);
      before = now;
    }
    await sleep(EVERY_MS, signal);
  }
}

function draw(place, view, plan, generations, drawn) {
  const devices = byDevice(view, plan);
  fill(
    place,
    h("h1", {}, view.name),
    h("p", { class: "worth" }, worth(plan)),
    figures([
      ...standing(view),
      ["Idle, predicted", percent(view.predicted.bubble_ratio)],
      ["Idle, measured", view.measured && percent(view.measured.bubble_ratio)],
      ["Rounds measured", view.measured && String(view.measured.rounds)],
      ["Nodes", view.nodes.join(", ")],
      ["Plans again by itself", view.refine ? "yes" : "no"],
    ]),
    h("h2", {}, "Drift and its cause"),
    h("p", {}, judged(view)),
    devices && h("p", {}, slowest(devices)),
    view.recovery_drift?.worst?.length > 0 && worst(view.recovery_drift),
    h("p", {}, `Last decision: ${view.decision ?? "none yet"}.`),
    h("h2", {}, "Predicted and measured, by generation"),
    chart(generations, (of) => clock(view, of), place.clientWidth),
    history(view, generations),
    h("h2", {}, "Predicted and measured, by device and layer"),
    drawn ? picture(drawn) : h("p", {}, undrawn(view)),
    devices && asTable(devices),
  );
}

/** Each device's seconds over the layers that run, predicted and measured; of one workload alone. */
function byDevice(view, plan) {
  if (!view.measured || view.traffic || plan.other_workloads?.length > 0) return null;
  const sum = (loads, device) =>
    view.layers.reduce((seconds, layer) => seconds + (loads(layer)[device] ?? 0), 0);
  return plan.devices.map((kind, device) => ({
    name: `${device} ${kind}`,
    predicted: sum((layer) => plan.layers[layer].loads_s, device),
    measured: sum((layer) => view.measured.device_loads_s[layer], device),
  }));
}

/** The device that takes longest for what was predicted of it, and what the others do. */
function slowest(devices) {
  const loaded = devices
    .filter((d) => d.measured > 0 && d.predicted > 0)
    .sort((a, b) => a.measured / a.predicted - b.measured / b.predicted);
  const most = loaded[loaded.length - 1];
  return (
    `Slowest beside its prediction is device ${most.name}: ${ms(most.measured)} measured, ` +
    `${ms(most.predicted)} predicted, ${times(most)} times as long; the median device takes ` +
    `${times(loaded[Math.floor(loaded.length / 2)])} times as long.`
  );
}

function asTable(devices) {
  const rows = devices.map((d) => [
    d.name,
    ms(d.predicted),
    ms(d.measured),
    d.predicted > 0 ? times(d) : "–",
  ]);
  const heads = ["Device", "Predicted", "Measured", "Measured / predicted"];
  return h(
    "details",
    {},
    h("summary", {}, "The same as a table"),
    table("Each device's load over the layers that run", heads, rows),
  );
}

const times = (d) => (d.measured / d.predicted).toFixed(2);

function undrawn(view) {
  return view.measured
    ? "An engine's steps are of many lengths: what they took is above, beside what their work predicts."
    : "Nothing is measured of this generation yet.";
}

function worst(drift) {
  return table(
    `The heads that fall shortest, of ${plural(drift.heads, "head")} over ${plural(drift.rounds, "round")}`,
    [...(drift.requests ? ["Requests"] : []), "Layer", "Head", "Promised", "Observed"],
    drift.worst.map((w) => [
      ...(drift.requests ? [requests(w)] : []),
      String(w.layer),
      String(w.head),
      w.expected.toFixed(4),
      w.observed.toFixed(4),
    ]),
  );
}

function history(view, generations) {
  const seen = new Map(generations.map((g) => [g.generation, g]));
  const rows = view.history.toReversed().map((entry) => {
    const of = seen.get(entry.generation);
    const live = entry.generation === view.generation;
    return [
      String(entry.generation),
      of ? ms(of.predicted.makespan_s) : "–",
      of?.measured ? ms(of.measured.makespan_s) : "–",
      live ? "live" : back(view, entry),
      h("a", { href: `#/plans/${entry.plan_id}` }, short(entry.plan_id)),
      entry.reason,
      time(entry.at),
    ];
  });
  const heads = ["Generation", "Predicted", "Measured", "Roll back", "Plan", "Why", "Since"];
  return table(plural(view.history.length, "generation"), heads, rows);
}

function back(view, entry) {
  if (entry.plan_id === view.plan_id) return "the live plan";
  const told = h("div", {});
  const press = async () => {
    const words =
      `Put the plan of generation ${entry.generation} live again on ${view.nodes.join(", ")}? ` +
      "It becomes a generation of its own.";
    if (!(await sure(words, "Roll back"))) return;
    const { nodes, layers, rounds, every_s, refine } = view;
    const body = { plan_id: entry.plan_id, nodes, layers, rounds, every_s, refine };
    try {
      await ask(`deployments/${view.name}`, { method: "PUT", body });
    } catch (error) {
      fill(told, said(error));
    }
  };
  const label = `Roll back to ${entry.generation}`;
  const id = `back-${entry.generation}`;
  return [h("button", { type: "button", id, click: press }, label), told];
}

/** When a generation went live, by the clock. */
function clock(view, generation) {
  const { at } = view.history.find((entry) => entry.generation === generation);
  return new Date(at).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
}

/** Makespans of generations: a ring is predicted, a dot measured. */
function chart(generations, since, room) {
  const width = Math.min(640, room), height = 195, left = 72, right = 20, top = 14, bottom = 45;
  const values = generations.flatMap((g) => [g.predicted.makespan_s, g.measured?.makespan_s ?? 0]);
  const most = 1.1 * Math.max(...values);
  const x = (at) => left + ((at + 0.5) * (width - left - right)) / generations.length;
  const y = (seconds) => height - bottom - (seconds / most) * (height - top - bottom);
  const drawn = [];
  for (const part of [0, 0.5, 1]) {
    const level = y(part * most);
    drawn.push(
      shape("path", { class: "rule", d: `M${left} ${level}H${width - right}` }),
      shape("text", { x: left - 6, y: level + 4, class: "end" }, ms(part * most, 3)),
    );
  }
  const line = (kind, of) => {
    const points = generations.map((g, at) => [at, of(g)]).filter(([, s]) => s !== undefined);
    const d = points.map(([at, s], first) => `${first ? "L" : "M"}${x(at)} ${y(s)}`).join("");
    drawn.push(shape("path", { class: `${kind} way`, d }));
    for (const [at, s] of points) {
      const told = shape("title", {});
      told.append(`Generation ${generations[at].generation}, ${kind}: ${ms(s)}`);
      drawn.push(shape("circle", { class: kind, cx: x(at), cy: y(s), r: 5 }, told));
    }
  };
  line("predicted", (g) => g.predicted.makespan_s);
  line("measured", (g) => g.measured?.makespan_s);
  const wide = (width - left - right) / generations.length > LABEL;
  generations.forEach((g, at) => {
    const place = { x: x(at), class: "middle" };
    drawn.push(shape("text", { ...place, y: height - 25 }, String(g.generation)));
    if (wide) drawn.push(shape("text", { ...place, y: height - 9 }, since(g.generation)));
  });
  const label = "Makespans by generation, predicted and measured; the table below has the figures";
  const size = `0 0 ${width} ${height}`;
  return h(
    "figure",
    { class: "chart" },
    shape("svg", { viewBox: size, role: "img", "aria-label": label }, ...drawn),
    h(
      "figcaption",
      {},
      h("span", { class: "ring" }),
      " predicted  ",
      h("span", { class: "spot" }),
      " measured; makespan of a step's attention by generation and when it went live",
    ),
  );
}

