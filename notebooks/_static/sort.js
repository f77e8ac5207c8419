// A click on the head of a column of a long table sorts its rows, numbers as numbers; a second click turns them round.
document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll(".bd-article table")) {
    const body = table.tBodies[0];
    if (!table.tHead || body.rows.length < 12) continue;
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.ariaSort === "ascending";
        for (const other of table.tHead.rows[0].cells) other.ariaSort = null;
        head.ariaSort = down ? "descending" : "ascending";
        const key = (row) => row.cells[column].textContent.trim().replace("\u2212", "-");
        const number = (text) => (/^-?[\d.]/.test(text) ? parseFloat(text) : Infinity);
        const rows = [...body.rows].sort((a, b) => {
          const [x, y] = [number(key(a)), number(key(b))];
          return x === y ? key(a).localeCompare(key(b)) : x - y;
        });
        body.append(...(down ? rows.reverse() : rows));
      });
    });
  }
});
