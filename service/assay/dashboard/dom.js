// Making elements. Texts become text nodes, never markup: names of runs come from anybody.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined),
  );
  return element;
}

// A section with a heading that names it to those who do not see it.
export function section(id, title, explanation, ...children) {
  const heading = h("h2", { id: `${id}-title` }, title);
  const head = h("div", { class: "head" }, heading, explanation ? h("p", {}, explanation) : null);
  return h("section", { id, "aria-labelledby": `${id}-title` }, head, ...children);
}

// Rows are lists of cells; the first cell of a row is its heading. `numeric` names columns by place.
export function table(caption, columns, rows, numeric = []) {
  const kind = (place) => (numeric.includes(place) ? "number" : null);
  const head = columns.map((name, place) => h("th", { scope: "col", class: kind(place) }, name));
  const body = rows.map((cells) =>
    h(
      "tr",
      {},
      cells.map((cell, place) =>
        place === 0 ? h("th", { scope: "row", class: kind(0) }, cell) : h("td", { class: kind(place) }, cell),
      ),
    ),
  );
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption), h("thead", {}, h("tr", {}, head)), h("tbody", {}, body)),
  );
}

// A table that is there for whoever cannot use the drawing; it is made when it is opened: `make` gives
// its columns, its rows, and which columns are numbers.
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

export function status(level, text) {
  return h("span", { class: "status", "data-level": level }, text ?? level);
}

export function announce(text) {
  document.getElementById("announcement").textContent = text;
}
