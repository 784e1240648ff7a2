"use strict";
// Search fields: a row stays while it holds every word that is typed.
for (const field of document.querySelectorAll("input[data-of]")) {
  const rows = [...document.getElementById(field.dataset.of).querySelectorAll("tbody tr")];
  const texts = rows.map((row) => row.textContent.toLowerCase());
  const output = field.parentElement.querySelector("output");
  field.addEventListener("input", () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    rows.forEach((row, i) => {
      row.hidden = !words.every((word) => texts[i].includes(word));
      shown += row.hidden ? 0 : 1;
    });
    output.textContent = `${shown} of ${rows.length}`;
  });
}
// A link into a table that a search has narrowed, or that is folded, opens its place first.
addEventListener("hashchange", () => {
  const place = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  const row = place && place.closest("tr");
  if (row) row.hidden = false;
  const folded = place && place.closest("details");
  if (folded) folded.open = true;
  if (place) place.scrollIntoView({ block: "center" });
});
// Print everything: folded parts are opened, as paper has nothing to click.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
