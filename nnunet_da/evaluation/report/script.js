// Sorts and filters tables, and opens what is folded before printing. The page says everything without it, too.
(() => {
  "use strict";
  const order = new Intl.Collator("en", { numeric: true });
  const opposite = { ascending: "descending", descending: "ascending" };

  function compare(one, other, direction) {
    // What is undefined stands last in either direction.
    if (one === "" || other === "") return (one === "") - (other === "");
    const numbers = [Number(one), Number(other)];
    const result = numbers.some(Number.isNaN) ? order.compare(one, other) : numbers[0] - numbers[1];
    return direction === "ascending" ? result : -result;
  }

  function sort(table, header) {
    const direction = opposite[header.getAttribute("aria-sort")] || header.dataset.first || "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", direction);
    const value = (row) => row.cells[header.cellIndex].dataset.value ?? row.cells[header.cellIndex].textContent.trim();
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [value(row), row]);
    rows.sort((one, other) => compare(one[0], other[0], direction));
    body.append(...rows.map(([, row]) => row));
    say(table, `sorted by ${header.textContent.trim()}, ${direction}`);
  }

  function say(table, text) {
    table.closest("[data-table]").querySelector("[role=status]").textContent = text;
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    for (const header of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, header));
    }
    const tools = table.closest("[data-table]");
    const search = tools.querySelector("input[type=search]");
    if (!search) continue;
    search.closest("label").hidden = false;
    search.addEventListener("input", () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !words.every((word) => text.includes(word));
        shown += !row.hidden;
      }
      say(table, `${shown} of ${table.tBodies[0].rows.length} rows shown`);
    });
  }

  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
})();
