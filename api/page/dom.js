// Elements, and how figures are written. Text goes in as text: nothing here parses HTML.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else if (value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

export function shape(tag, attributes, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A picture that the planner drew, in a box that scrolls where the screen is narrow. */
export function picture(svg) {
  const drawn = new DOMParser().parseFromString(svg, "image/svg+xml").documentElement;
  const box = h("div", { class: "picture", tabindex: "0", role: "group" });
  box.setAttribute("aria-label", "Picture, which scrolls sideways where it does not fit");
  box.append(document.importNode(drawn, true));
  return box;
}

let tables = 0;

/** A table in a box that scrolls by itself; cells are text, nodes or lists of these. */
export function table(caption, heads, rows) {
  const id = `table-${(tables += 1)}`;
  const cell = (tag, content, more = {}) => h(tag, more, [content].flat());
  const body = rows.map((row) => {
    const [first, ...rest] = row;
    return h("tr", {}, cell("th", first, { scope: "row" }), rest.map((c) => cell("td", c)));
  });
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-labelledby": id },
    h(
      "table",
      {},
      h("caption", { id }, caption),
      h("thead", {}, h("tr", {}, heads.map((name) => cell("th", name, { scope: "col" })))),
      h("tbody", {}, body),
    ),
  );
}

/** Names with their values, the way a plan's figures are shown. */
export function figures(pairs) {
  return h(
    "dl",
    { class: "figures" },
    pairs
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
  );
}

export function field(label, input, hint = null) {
  const name = input.id;
  if (hint) input.setAttribute("aria-describedby", `${name}-hint`);
  return h(
    "div",
    { class: "field" },
    h("label", { for: name }, label),
    input,
    hint && h("p", { class: "hint", id: `${name}-hint` }, hint),
  );
}

/** Fill a place anew; what had the focus has it still, where it is there by its id. */
export function fill(place, ...children) {
  const id = place.contains(document.activeElement) ? document.activeElement.id : "";
  const scrolled = [...place.querySelectorAll(".scroll, .picture")].map((box) => box.scrollLeft);
  place.replaceChildren(...children.flat(Infinity).filter((c) => c !== null && c !== undefined && c !== false));
  place.querySelectorAll(".scroll, .picture").forEach((box, at) => {
    box.scrollLeft = scrolled[at] ?? 0;
  });
  if (id) document.getElementById(id)?.focus({ preventScroll: true });
}

/** Ask before something that others will feel; true where the answer is yes. */
export function sure(words, yes) {
  const dialog = document.getElementById("ask-dialog");
  document.getElementById("ask-words").textContent = words;
  const agree = document.getElementById("ask-yes");
  agree.textContent = yes;
  dialog.returnValue = "";
  agree.onclick = () => dialog.close("yes");
  document.getElementById("ask-no").onclick = () => dialog.close("no");
  dialog.showModal();
  return new Promise((tell) => {
    dialog.onclose = () => tell(dialog.returnValue === "yes");
  });
}

export const ms = (seconds, digits = 4) => {
  if (seconds === null || seconds === undefined) return "–";
  const value = 1e3 * seconds;
  if (value === 0) return "0\u00a0ms";
  return `${value >= 1000 ? Math.round(value).toLocaleString("en") : value.toPrecision(digits)}\u00a0ms`;
};

export const percent = (share, digits = 2) => `${(100 * share).toFixed(digits)}\u00a0%`;

export const count = (whole) => whole.toLocaleString("en");

export const time = (iso) => new Date(iso).toLocaleString();

export const short = (id) => id.slice(0, 12);

export const plural = (number, word) => `${count(number)} ${word}${number === 1 ? "" : "s"}`;

/** Kinds counted: ["h200", "h200"] as "2 x h200". */
export function counted(kinds) {
  const found = new Map();
  for (const kind of kinds) found.set(kind, (found.get(kind) ?? 0) + 1);
  return [...found].map(([kind, number]) => `${number} x ${kind}`).join(", ");
}
