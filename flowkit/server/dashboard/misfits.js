// The rows of results that do not fit their schemas, below the nodes. Drawn anew only when they are others.
function drawMisfits(body, nodes) {
  const found = nodes.filter((node) => node.misfits);
  const drawn = JSON.stringify(found.map((node) => [node.name, node.misfits]));
  if (body.misfits?.drawn === drawn && body.misfits.root.parentNode === (found.length ? body.parentNode : null)) return;
  body.misfits?.root.remove();
  const root = h("div", { class: "misfits" }, ...found.map(({ name, misfits: { columns, values, more } }) =>
    h("figure", {},
      h("figcaption", {}, "Rows of ", h("b", {}, name), " that do not fit its schema", more ? `: ${values.length} of ${count(values.length + more)}` : ""),
      h("div", { class: "rows", tabindex: "0", role: "region", "aria-label": `Rows of ${name}` },
        h("table", {},
          h("thead", {}, h("tr", {}, ...columns.map((column, place) => h("th", { scope: "col", class: place && numbers(values, place) ? "number" : null }, column)))),
          h("tbody", {}, ...values.map((row) => h("tr", {}, ...row.map(misfit)))))))));
  if (found.length) body.after(root);
  body.misfits = { drawn, root };
}

function numbers(values, place) {
  return values.every((row) => row[place] === null || typeof row[place] === "number");
}

function misfit(value, place) {
  const text = value === null ? "none" : String(value);
  const style = value === null ? "none" : typeof value === "number" ? "number" : null;
  return place ? h("td", { class: style, title: text }, text) : h("th", { scope: "row" }, text);
}
