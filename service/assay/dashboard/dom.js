// Creating elements. Texts become text nodes, never markup: names of runs are untrusted input.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...flatten(children));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(...flatten(children));
  return element;
}

const flatten = (children) =>
  children.flat(Infinity).filter((child) => child !== null && child !== undefined);

// A section that is labelled by its heading, for screen readers.
export function section(id, title, explanation, ...children) {
  const heading = h("h2", { id: `${id}-title` }, title);
  const head = h("div", { class: "head" }, heading, explanation ? h("p", {}, explanation) : null);
  return h("section", { id, "aria-labelledby": `${id}-title` }, head, ...children);
}

// Rows are lists of cells; the first cell of a row is its heading. `numeric` has the indexes of the
// columns of numbers.
export function table(caption, columns, rows, numeric = []) {
  const kind = (index) => (numeric.includes(index) ? "number" : null);
  const head = columns.map((name, index) => h("th", { scope: "col", class: kind(index) }, name));
  const body = rows.map((cells) =>
    h(
      "tr",
      {},
      cells.map((cell, index) =>
        index === 0 ? h("th", { scope: "row", class: kind(0) }, cell) : h("td", { class: kind(index) }, cell),
      ),
    ),
  );
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}

// The numbers of a chart as a table, created when it is opened. `make` returns the columns, the rows,
// and the indexes of the columns of numbers.
export function tableOf(caption) {
  const details = h("details", { class: "table" }, h("summary", {}, "Numbers as a table"));
  let make = null;
  const draw = () => {
    if (!details.open || !make) return;
    details.querySelector(".scroll")?.remove();
    details.append(table(caption, ...make()));
  };
  details.addEventListener("toggle", draw);
  return {
    element: details,
    update(next) {
      make = next;
      draw();
    },
  };
}

// The level of each state of a model; a state without one is shown quietly.
export const STATE_LEVELS = { ready: "ok", loading: "warn", not_proven: "critical", failed: "critical" };

export function status(level, text) {
  return h("span", { class: "status", "data-level": level }, text ?? level);
}

// Have a screen reader speak a text.
export function announce(text) {
  document.getElementById("announcement").textContent = text;
}
