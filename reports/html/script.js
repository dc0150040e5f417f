
"use strict";
{
  const byId = (id) => document.getElementById(id);
  const moves = [...document.querySelectorAll(".move")];
  const rows = new Map([...document.querySelectorAll("tr[data-move]")].map((row) => [row.dataset.move, row]));
  const texts = new Map();
  const text = (move) => {
    if (!texts.has(move)) texts.set(move, move.textContent.toLowerCase());
    return texts.get(move);
  };
  const filter = () => {
    const words = byId("query").value.toLowerCase().split(/\s+/).filter(Boolean);
    const wanted = { go: byId("show-go").checked, "no-go": byId("show-no-go").checked };
    let shown = 0;
    for (const move of moves) {
      const show = wanted[move.dataset.go] && words.every((word) => text(move).includes(word));
      move.hidden = !show;
      const row = rows.get(move.id);
      if (row) row.hidden = !show;
      if (show) shown += 1;
    }
    byId("shown").textContent = `${shown} of ${moves.length} shown`;
  };
  document.querySelector(".filter").hidden = false;
  for (const id of ["query", "show-go", "show-no-go"]) byId(id).addEventListener("input", filter);
  addEventListener("beforeprint", () => {
    for (const details of document.querySelectorAll("details")) details.open = true;
  });
  filter();
}
