"use strict";
// Tables: a click on a head sorts by it; empty cells (what was not recorded) stay last.
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((head, column) => {
    const button = head.querySelector("button");
    if (!button) return;
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("th[aria-sort]").forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === "" || y === "") return (x === "") - (y === "");
        const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -order : order;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
// Paper: what is folded is open, and a table of many columns is a list per row, so that its cells carry their heads.
const folded = [...document.querySelectorAll("details:not([open])")];
addEventListener("beforeprint", () => {
  for (const one of folded) one.open = true;
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.querySelectorAll("thead th")].map((head) => head.textContent);
    if (heads.length <= 12) continue;
    table.classList.add("many");
    for (const row of table.tBodies[0].rows) heads.forEach((head, i) => { row.cells[i].dataset.head = head; });
  }
});
addEventListener("afterprint", () => { for (const one of folded) one.open = false; });
// Timelines: Ctrl and the wheel, + and - zoom about the middle; arrows and dragging move; 0 shows all. All lanes go along.
for (const figure of document.querySelectorAll("figure.zoom")) {
  const width = Number(figure.dataset.width), step = Number(figure.dataset.step), height = 100;
  const lanes = [...figure.querySelectorAll("svg")], text = figure.querySelector("output");
  const least = width / 500;
  let left = 0, shown = width;
  const show = () => {
    shown = Math.min(width, Math.max(least, shown));
    left = Math.min(width - shown, Math.max(0, left));
    for (const svg of lanes) svg.setAttribute("viewBox", `${left} 0 ${shown} ${height}`);
    text.textContent = `${(left * step).toPrecision(4)} s to ${((left + shown) * step).toPrecision(4)} s`;
  };
  const zoom = (factor, at = 0.5) => {
    const middle = left + shown * at;
    shown = Math.min(width, Math.max(least, shown * factor));
    left = middle - shown * at;
    show();
  };
  figure.addEventListener("keydown", (event) => {
    const keys = { "+": () => zoom(0.8), "=": () => zoom(0.8), "-": () => zoom(1.25), "0": () => { left = 0; shown = width; show(); },
      ArrowLeft: () => { left -= shown / 10; show(); }, ArrowRight: () => { left += shown / 10; show(); } };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
  let from = null;
  for (const svg of lanes) {
    svg.addEventListener("wheel", (event) => { if (!event.ctrlKey) return; event.preventDefault(); zoom(event.deltaY > 0 ? 1.25 : 0.8, event.offsetX / svg.clientWidth); }, { passive: false });
    svg.addEventListener("pointerdown", (event) => { from = event.offsetX; svg.setPointerCapture(event.pointerId); });
    svg.addEventListener("pointermove", (event) => { if (from === null) return; left -= (event.offsetX - from) / svg.clientWidth * shown; from = event.offsetX; show(); });
    svg.addEventListener("pointerup", () => { from = null; });
  }
  show();
}
// Interleavings: one move at a time, and what holds after it. Moves that change nothing here are passed over unless all
// are asked for.
for (const run of document.querySelectorAll(".run")) {
  const rows = [...run.querySelectorAll(".steps tbody tr")];
  const state = run.querySelector(".state"), where = run.querySelector("output"), all = run.querySelector("input");
  const changes = JSON.parse(run.querySelector("script").textContent);
  let now = rows.length - 1;
  const stop = (i) => all.checked || !rows[i].classList.contains("minor");
  const show = (scroll) => {
    const held = new Map();
    changes.slice(0, now + 1).forEach((step, i) => step.forEach(([key, value]) => held.set(key, [value, i])));
    state.replaceChildren(...[...held].filter(([, [value]]) => value !== null).map(([key, [value, at]]) => {
      const line = document.createElement("div"), name = document.createElement("span"), what = document.createElement("code");
      name.textContent = key; what.textContent = value; line.append(name, what);
      if (at === now) line.className = "changed";
      return line;
    }));
    rows.forEach((row, i) => { row.classList.toggle("now", i === now); row.classList.toggle("later", i > now); });
    if (scroll) rows[now].scrollIntoView({ block: "nearest" });
    where.textContent = `after move ${rows[now].cells[0].textContent} of ${rows.length}`;
  };
  const walk = (from, by) => {
    let to = from;
    while (to >= 0 && to < rows.length && !stop(to)) to += by;
    if (to >= 0 && to < rows.length) now = to;
    show(true);
  };
  const moves = { first: () => walk(0, 1), back: () => walk(now - 1, -1), next: () => walk(now + 1, 1), last: () => walk(rows.length - 1, -1) };
  for (const button of run.querySelectorAll(".controls button")) button.addEventListener("click", moves[button.name]);
  all.addEventListener("change", () => { run.classList.toggle("all", all.checked); walk(now, -1); });
  run.addEventListener("keydown", (event) => {
    const key = { ArrowLeft: "back", ArrowUp: "back", ArrowRight: "next", ArrowDown: "next", Home: "first", End: "last" }[event.key];
    if (key && event.target !== all) { event.preventDefault(); moves[key](); }
  });
  rows.forEach((row, i) => row.addEventListener("click", () => { now = i; show(false); }));
  show(false);
}
