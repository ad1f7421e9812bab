// What figures amount to, in a sentence.

import { count, h, ms, percent, plural, short } from "./dom.js";

/** Attention's share of the step, and what the placement gains of the whole: said first. */
export function worth(plan) {
  const whole = plan.whole_step;
  if (!whole) {
    return "What share of the step attention is, nobody knows: the profile does not say the MLP's size.";
  }
  const share = `Attention is ${percent(whole.attention_share, 1)} of the step`;
  const step = `${ms(whole.contiguous_step_s)} to ${ms(whole.step_s)}`;
  if (whole.gain >= 0.01) {
    return `${share}; this placement makes the whole step ${percent(whole.gain, 1)} faster (${step}).`;
  }
  const from = whole.pays_from_tokens;
  const pays = from ? ` It would pay from ${count(from)} tokens.` : "";
  const found =
    whole.gain <= -0.00005
      ? `makes the whole step ${percent(-whole.gain)} slower`
      : `gains ${percent(whole.gain)} of it`;
  return `${share}; this placement ${found} (${step}): not worth it here.${pays}`;
}

/** What runs, predicted and measured: the first figures of a deployment, wherever it is shown. */
export function standing(view) {
  return [
    ["Generation", String(view.generation)],
    ["Plan", h("a", { href: `#/plans/${view.plan_id}` }, short(view.plan_id))],
    ["Predicted", ms(view.predicted.makespan_s)],
    ["Measured", view.measured ? ms(view.measured.makespan_s) : "not yet"],
  ];
}

/** Whether time and recovery are as promised, and why not. */
export function judged(view) {
  if (view.drift === null) return "Nothing is measured of this generation yet.";
  const off = percent(view.prediction_error, 1);
  const times = view.drift.toFixed(2);
  return [
    `Measured over predicted makespan: ${times}; loads are off by ${off} on average. `,
    recovery(view.recovery_drift),
  ].join("");
}

function recovery(drift) {
  if (!drift) {
    return "Recovery is not reported: it is of engines, and of nodes that run a model's own activations.";
  }
  if (drift.reason) return `Recovery cannot be judged: ${drift.reason}`;
  const heads = `${drift.heads_drifted} of ${plural(drift.heads, "head")}`;
  const of = (drift.requests ?? []).filter((each) => each.raised).map(requests);
  if (drift.raised) {
    const where = of.length > 0 ? ` in ${of.join(" and in ")}` : "";
    return drift.heads_drifted > 0
      ? `Drift: ${heads} recover less than the profile promised${where}.`
      : `Drift: heads recovered less than the profile promised${where}, none of which came since.`;
  }
  return drift.heads > 0
    ? `Recovery is as promised (${heads} fall short).`
    : "Recovery is reported, of too few rounds yet to be judged.";
}

/** An engine's requests that are judged together, by phase and context. */
export const requests = (of) =>
  `${of.phase === "decode" ? "decodes" : "prompts"} of up to ${count(of.context_tokens)} tokens`;
