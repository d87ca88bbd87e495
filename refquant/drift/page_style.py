"""The look of the page, and the few lines of script that sort its table."""

__all__ = ["STYLE", "SCRIPT"]

STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #ffffff; --ink: #1c2024; --soft: #62686f; --rule: #e3e5e8; --shade: #1c202438; --accent: #b4432f;
  --local: #46525e; --cumulative: #aeb8c2; --impact: #b4432f; --weights: #35618f; --inputs: #4f9d94; --rounding: #d9b23f;
  --clipping: #b4432f; --engine: #7d5fa8; --band: #35618f18; --good: #4f9d94; --fair: #d9b23f; --poor: #c2513b; --values: #7b8794; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --card: #1d2126; --ink: #e7e9ec; --soft: #9aa2ab; --rule: #333940; --shade: #e7e9ec40; --accent: #ef8a72;
  --local: #c6d0da; --cumulative: #66727e; --impact: #ef8a72; --weights: #6ea3da; --inputs: #6cc0b5; --rounding: #e3c567;
  --clipping: #ef8a72; --engine: #a98bd6; --band: #6ea3da22; --good: #6cc0b5; --fair: #e3c567; --poor: #ef7f67; --values: #8c97a4; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1160px; margin: 0 auto; padding: 40px 24px 80px; }
h1 { font-size: 28px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 19px; margin: 48px 0 6px; }
h3 { font-size: 15px; margin: 0 0 2px; overflow-wrap: anywhere; }
p { margin: 6px 0 12px; max-width: 76ch; }
.soft, figcaption { color: var(--soft); font-size: 13.5px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px; margin: 24px 0; }
.card, .verdict, .layer { background: var(--card); border: 1px solid var(--rule); border-radius: 10px; padding: 14px 16px; }
.card b { display: block; font-size: 26px; line-height: 1.25; font-variant-numeric: tabular-nums; }
.card.bad b { color: var(--accent); }
.verdict { border-left: 4px solid var(--accent); }
.verdict p { margin: 4px 0; max-width: none; }
/* What lies outside a narrow window casts a shadow on that side. */
.scroll { overflow-x: auto; background: linear-gradient(to right, var(--paper) 30%, transparent) left / 28px 100% no-repeat local,
  linear-gradient(to left, var(--paper) 30%, transparent) right / 28px 100% no-repeat local,
  linear-gradient(to right, var(--shade), transparent) left / 12px 100% no-repeat, linear-gradient(to left, var(--shade), transparent) right / 12px 100% no-repeat; }
svg { display: block; max-width: 100%; height: auto; }
.scroll svg { min-width: 760px; }
svg text { fill: var(--ink); font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
svg .tick { fill: var(--soft); font-size: 10.5px; } svg .heading { font-weight: 600; } svg .name { font-size: 12px; }
.grid { stroke: var(--rule); stroke-width: 1; } .step { stroke: var(--ink); stroke-width: 1.4; stroke-dasharray: 4 3; }
.edge { stroke: var(--weights); stroke-width: 1; stroke-dasharray: 3 3; }
.local { fill: var(--local); } .cumulative { fill: var(--cumulative); } .impact { fill: var(--impact); stroke: var(--card); stroke-width: 1.5; }
.cause-weights { fill: var(--weights); } .cause-inputs { fill: var(--inputs); } .cause-rounding { fill: var(--rounding); }
.cause-clipping { fill: var(--clipping); } .cause-engine { fill: var(--engine); }
.band { fill: var(--band); } .values { fill: var(--values); } .outside { fill: var(--poor); }
.good { fill: var(--good); } .fair { fill: var(--fair); } .poor { fill: var(--poor); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 13px; color: var(--soft); margin: 8px 0; }
.legend span { display: inline-flex; align-items: center; gap: 6px; }
.legend i { width: 12px; height: 12px; border-radius: 3px; } .legend i.round { border-radius: 50%; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 5px 7px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { color: var(--soft); font-weight: 600; white-space: normal; vertical-align: bottom; }
table.sortable th { cursor: pointer; user-select: none; } table.sortable th:focus-visible { outline: 2px solid var(--local); }
th[aria-sort="ascending"]::after { content: " ▴"; } th[aria-sort="descending"]::after { content: " ▾"; }
td.worst { color: var(--accent); font-weight: 600; }
td .bar { display: inline-block; height: 9px; border-radius: 2px; background: var(--weights); vertical-align: middle; }
td.bars { width: 34%; text-align: left; }
.layer { margin: 12px 0; } .panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(250px, 1fr)); gap: 12px; margin-top: 8px; }
figure { margin: 0; } details > summary { cursor: pointer; padding: 10px 0; font-weight: 600; }
table.words td, table.words th { text-align: left; white-space: normal; vertical-align: top; }
@media (max-width: 640px) { main { padding: 24px 16px 48px; } th, td { padding: 5px; }
  th:first-child, td:first-child { position: sticky; left: 0; min-width: 30vw; max-width: 42vw; white-space: normal; overflow-wrap: anywhere; background: var(--paper); }
  td.bars { min-width: 90px; } table.words td { min-width: 18ch; } table.words td:last-child { min-width: 54ch; } }
@media print { body { background: #fff; } .layer { break-inside: avoid; } }
"""

SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, k) => { const v = row.cells[k].dataset.value; return v === undefined ? row.cells[k].textContent : Number(v); };
  const sort = (head, k) => {
    const down = head.getAttribute("aria-sort") === "ascending";
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const x = value(a, k), y = value(b, k);
      return (typeof x === "number" ? x - y : x.localeCompare(y)) * (down ? -1 : 1);
    });
    table.tBodies[0].append(...rows);
  };
  heads.forEach((head, k) => {
    head.tabIndex = 0;
    head.addEventListener("click", () => sort(head, k));
    head.addEventListener("keydown", e => { if (e.key === "Enter" || e.key === " ") { e.preventDefault(); sort(head, k); } });
  });
}
"""
