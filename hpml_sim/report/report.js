// Sort and filter of the results table. The page is complete without this script.
(() => {
  "use strict";
  const table = document.getElementById("comparison");
  const form = document.getElementById("controls");
  const status = document.getElementById("status");
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const heads = Array.from(table.tHead.rows[0].cells);
  const scopes = ["core", "chip", "board", "system", "this machine"];
  let sorted = "";

  // A missing figure is last in either direction: it is unknown, not small.
  const compare = (column, numeric, sign) => (a, b) => {
    const x = a.cells[column].dataset.sort, y = b.cells[column].dataset.sort;
    if (x === "" || y === "") return (x === "") - (y === "");
    return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y, undefined, { numeric: true }));
  };

  const sort = (column) => {
    const head = heads[column];
    const up = head.getAttribute("aria-sort") !== "ascending";
    const within = "within" in head.dataset;
    const by = compare(column, head.dataset.kind === "number", up ? 1 : -1);
    const scope = (row) => scopes.indexOf(row.dataset.scope);
    const order = rows.slice().sort((a, b) => (within && scope(a) - scope(b)) || by(a, b) || rows.indexOf(a) - rows.indexOf(b));
    for (const other of heads) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    order.forEach((row, i) => row.classList.toggle("lead-line", i === 0 || order[i - 1].dataset.scope !== row.dataset.scope));
    body.append(...order);
    sorted = `, sorted by ${head.dataset.label}, ${up ? "ascending" : "descending"}` +
      (within ? ", within each scope: costs of different scope are not ranked" : "");
    say();
  };

  const say = () => {
    const shown = rows.filter((row) => !row.hidden).length;
    status.textContent = `${shown} of ${rows.length} lines shown${sorted}.`;
  };

  const filter = () => {
    const wanted = new FormData(form);
    const words = String(wanted.get("text")).toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const data = row.dataset;
      row.hidden = !(words.every((word) => data.words.includes(word)) &&
        (!wanted.get("scope") || wanted.get("scope") === data.scope) &&
        (!wanted.get("provenance") || wanted.get("provenance") === data.provenance) &&
        (!wanted.get("one") || data.first === "1"));
    }
    say();
  };

  heads.forEach((head, column) => {
    const label = head.querySelector(".head");
    const text = label.firstChild;
    head.dataset.label = text.textContent.trim();
    const arrow = document.createElement("i");
    arrow.className = "arrow";
    arrow.setAttribute("aria-hidden", "true");
    label.insertBefore(arrow, head.dataset.kind === "number" ? text : text.nextSibling);
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(label);
    button.addEventListener("click", () => sort(column));
    head.append(button);
  });

  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(() => {
    for (const head of heads) head.removeAttribute("aria-sort");
    sorted = "";
    body.append(...rows);
    filter();
  }));
  say();

  // Marks of the plots say what they stand for at once, under the pointer or a finger; without this script their
  // <title> does so after a while. The tables hold the same figures for the keyboard and for screen readers.
  const tip = document.body.appendChild(document.createElement("div"));
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true");
  for (const title of document.querySelectorAll(".plot svg g > title")) {
    title.parentNode.dataset.tip = title.textContent;
    title.remove();
  }
  let x = -1, y = -1;
  const show = () => {
    const mark = document.elementFromPoint(x, y)?.closest("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.min(Math.max(8, x + 14), innerWidth - width - 8)}px`;
    tip.style.top = `${y - height - 14 < 8 ? y + 18 : y - height - 14}px`;
  };
  const point = (event) => { x = event.clientX; y = event.clientY; show(); };
  document.addEventListener("pointermove", point);
  document.addEventListener("pointerdown", point);
  document.addEventListener("scroll", show, { passive: true });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });

  // What is folded on the screen belongs on paper.
  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.dataset.was = d.open; d.open = true; }));
  addEventListener("afterprint", () => document.querySelectorAll("details").forEach((d) => { d.open = d.dataset.was === "true"; }));
})();
