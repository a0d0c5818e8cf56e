"use strict";
(() => {
  // Figures: the picture that the button saves is SVG, for papers.
  for (const place of document.querySelectorAll("[data-figure]")) {
    const figure = JSON.parse(document.getElementById(place.dataset.figure).textContent);
    Plotly.newPlot(place, figure.data, figure.layout, {
      responsive: true,
      displaylogo: false,
      displayModeBar: true,
      // named one by one: plotly's own set has one that uploads the figure
      modeBarButtons: [["toImage"], ["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d"]],
      toImageButtonOptions: { format: "svg", filename: place.dataset.name },
      locale: "en",
    });
  }

  // Long tables begin with their first rows, and a button shows all. Printed pages have all rows, as has
  // a page without scripts; a search in the page is to find what is in any of them.
  const FIRST = 25, HARDLY_MORE = 5;
  const wholes = [];
  for (const box of document.querySelectorAll(".rows")) {
    const fit = () => box.classList.toggle("fits", box.scrollWidth <= box.clientWidth);
    new ResizeObserver(fit).observe(box);
    const count = box.querySelector("table").tBodies[0].rows.length;
    if (count <= FIRST + HARDLY_MORE) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "more";
    const show = (all) => {
      box.classList.toggle("few", !all);
      button.setAttribute("aria-expanded", all);
      button.textContent = all ? `Show the first ${FIRST}` : `Show all ${count} ${box.dataset.what || "rows"}`;
    };
    button.addEventListener("click", () => {
      const all = box.classList.contains("few");
      show(all);
      if (!all) box.scrollIntoView({ block: "start" });
    });
    wholes.push(() => show(true));
    show(false);
    box.after(button);
  }
  addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "f") for (const show of wholes) show();
  });

  // Printing: figures are laid out for the paper (page.css says how wide), and as before afterwards.
  // Script does not learn the paper's size; this width goes on A4 and on Letter.
  let opened = [], laidOut = [];
  addEventListener("beforeprint", () => {
    if (laidOut.length) return;
    opened = [...document.querySelectorAll("details:not([open]):has(> .rows)")];
    for (const details of opened) details.open = true;
    laidOut = [...document.querySelectorAll("[data-figure]")];
    for (const place of laidOut) {
      const width = Number(getComputedStyle(place).getPropertyValue("--paper"));
      Plotly.relayout(place, { width, autosize: false });
    }
  });
  addEventListener("afterprint", () => {
    for (const details of opened) details.open = false;
    for (const place of laidOut) Plotly.relayout(place, { width: null, autosize: true });
    opened = [];
    laidOut = [];
  });

  // Tables: a click on a heading sorts by it, a second one the other way; what is missing is last.
  const value = (row, column) => {
    const cell = row.cells[column];
    return "key" in cell.dataset ? Number(cell.dataset.key) : cell.textContent.trim();
  };
  const missing = (found) => found === "" || found === "–";
  const compare = (one, two) => {
    if (typeof one === "number" && typeof two === "number") return one - two;
    if (typeof one !== typeof two) return typeof one === "number" ? -1 : 1;
    return one.localeCompare(two, "en", { numeric: true });
  };
  for (const table of document.querySelectorAll("table.sortable")) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = heading.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const way = heading.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        for (const other of headings) other.removeAttribute("aria-sort");
        heading.setAttribute("aria-sort", way === 1 ? "ascending" : "descending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => ({ row, found: value(row, column) }));
        rows.sort((one, two) => {
          const gone = missing(one.found) - missing(two.found);
          return gone || (missing(one.found) ? 0 : way * compare(one.found, two.found));
        });
        body.append(...rows.map((entry) => entry.row));
      });
    });
  }
})();
