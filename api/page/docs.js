// openapi.json as a page: every operation, what it takes and what it answers.

import { fill, h, table } from "./dom.js";
import { get, key, said } from "./planner.js";

const place = document.getElementById("operations");
const DEEPEST = 6;
const PROBLEM = "application/problem+json";

async function show() {
  try {
    draw(await get("openapi.json"));
  } catch (error) {
    const input = h("input", { id: "docs-key", type: "password", autocomplete: "off" });
    const use = (event) => {
      event.preventDefault();
      key.set(input.value);
      show();
    };
    const label = h("label", { for: "docs-key" }, "The service's key");
    const go = h("button", { type: "submit" }, "Use it");
    fill(place, said(error), h("form", { class: "row", submit: use }, label, input, go));
  }
}

function draw(document) {
  const schemas = document.components?.schemas ?? {};
  const byTag = new Map();
  for (const [path, operations] of Object.entries(document.paths)) {
    for (const [method, operation] of Object.entries(operations)) {
      const tag = operation.tags?.[0] ?? "other";
      byTag.set(tag, [...(byTag.get(tag) ?? []), [method.toUpperCase(), path, operation]]);
    }
  }
  fill(
    place,
    h("p", {}, `${document.info.title} ${document.info.version}: ${document.info.summary ?? ""}`),
    [...byTag].map(([tag, of]) => [
      h("h2", {}, tag[0].toUpperCase() + tag.slice(1)),
      of.map(([method, path, operation]) => one(method, path, operation, schemas)),
    ]),
  );
}

function one(method, path, operation, schemas) {
  const body = operation.requestBody?.content ?? {};
  const parameters = (operation.parameters ?? []).map((p) => [
    p.name,
    p.in + (p.required ? ", required" : ""),
    kind(p.schema ?? {}),
    p.description ?? "",
  ]);
  return h(
    "details",
    { class: "operation" },
    h("summary", {}, h("code", {}, `${method} ${path}`), ` ${operation.summary ?? ""}`),
    h("p", {}, operation.description ?? ""),
    parameters.length > 0 && table("Parameters", ["Name", "In", "Type", "Meaning"], parameters),
    Object.entries(body).map(([media, of]) => [
      h("h3", {}, `Body, ${media}`),
      schema(of.schema ?? {}, schemas, 0),
    ]),
    h("h3", {}, "Answers"),
    Object.entries(operation.responses)
      .filter(([, answer]) => !answer.content?.[PROBLEM])
      .map(([status, answer]) => [
        h("p", {}, h("strong", {}, status), ` ${answer.description}`),
        Object.values(answer.content ?? {}).map((of) => schema(of.schema ?? {}, schemas, 0)),
      ]),
    refusals(operation.responses, schemas),
  );
}

/** All the problems that an operation answers with, which have one form. */
function refusals(responses, schemas) {
  const refused = Object.entries(responses).filter(([, answer]) => answer.content?.[PROBLEM]);
  if (refused.length === 0) return null;
  const words = refused.map(([status, answer]) => `${status} ${answer.description}`).join(", ");
  return [
    h("p", {}, h("strong", {}, "Refused"), ` with a problem: ${words}`),
    schema(refused[0][1].content[PROBLEM].schema, schemas, 0),
  ];
}

const nameOf = (reference) => reference.split("/").at(-1);

function kind(of) {
  if (of.$ref) return nameOf(of.$ref);
  if (of.const !== undefined) return JSON.stringify(of.const);
  if (of.enum) return of.enum.map((e) => JSON.stringify(e)).join(" or ");
  const any = of.anyOf ?? of.oneOf;
  if (any) return any.map(kind).join(" or ");
  if (of.type === "array") return `list of ${kind(of.items ?? {})}`;
  const ends = [
    [of.minimum, "at least"],
    [of.exclusiveMinimum, "above"],
    [of.maximum, "at most"],
    [of.exclusiveMaximum, "below"],
  ];
  const limits = ends.filter(([n]) => n !== undefined).map(([n, words]) => `${words} ${n}`);
  return [of.type ?? "anything", ...limits].join(", ");
}

/** References in a schema, nested ones too. */
function references(of) {
  if (of.$ref) return [of.$ref];
  const within = [...(of.anyOf ?? []), ...(of.oneOf ?? []), ...(of.items ? [of.items] : [])];
  return within.flatMap(references);
}

/** A schema's fields; those of the schemas it names unfold below, drawn when they are opened. */
function schema(of, schemas, depth) {
  if (!of.properties) {
    const named = [...new Set(references(of))];
    if (named.length === 0) return h("p", {}, kind(of));
    return named.map((reference) => folded(reference, schemas, depth));
  }
  const required = new Set(of.required ?? []);
  const rows = Object.entries(of.properties).map(([name, field]) => [
    name,
    kind(field) + (required.has(name) ? ", required" : ""),
    field.default === undefined ? "" : JSON.stringify(field.default),
    field.description ?? "",
  ]);
  const below = new Set(Object.values(of.properties).flatMap(references));
  return [
    of.description && h("p", {}, of.description),
    table("Fields", ["Name", "Type", "Default", "Meaning"], rows),
    [...below].map((reference) => folded(reference, schemas, depth)),
  ];
}

function folded(reference, schemas, depth) {
  const name = nameOf(reference);
  const details = h("details", {}, h("summary", {}, name));
  const open = () => {
    if (!details.open || details.children.length > 1 || depth > DEEPEST) return;
    details.append(h("div", {}, schema(schemas[name] ?? {}, schemas, depth + 1)));
  };
  details.addEventListener("toggle", open);
  return details;
}

show();
