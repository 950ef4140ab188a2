"""The style sheet of `report.html`."""

STYLE = """
:root { --ink: #24272d; --soft: #6d7380; --line: #e3e1da;
  --paper: #fbfaf7; --card: #ffffff; --accent: #2f6f8f; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 "Iowan Old Style", "Palatino Linotype", Palatino, Georgia, "DejaVu Serif", serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 32px 64px; }
h2, figcaption, table, .mark, .time, small, summary, svg text {
  font-family: "Inter", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
.mark { margin: 0 0 10px; font-size: 13px; letter-spacing: .18em; text-transform: uppercase;
  color: var(--accent); font-weight: 600; }
h1.sentence { margin: 0 0 34px; font-size: 31px; line-height: 2.05; font-weight: 400; }
h2 { margin: 44px 0 14px; font-size: 14px; letter-spacing: .04em; font-weight: 600; }
small { color: var(--soft); font-weight: 400; font-size: 13px; margin-left: 6px; letter-spacing: 0; }
figure { margin: 0; }
figcaption { margin-top: 8px; font-size: 13px; line-height: 1.45; color: var(--soft);
  overflow-wrap: anywhere; }
figcaption b { color: var(--ink); }
img { display: block; width: 100%; height: auto; border-radius: 8px; }
.word { position: relative; display: inline-block; vertical-align: middle; margin: 0 7px 0 4px; }
.word img { width: auto; height: 62px; border-radius: 10px; border: 3px solid var(--colour, var(--line)); }
.badge { position: absolute; left: -7px; top: -7px; min-width: 22px; height: 22px;
  padding: 0 6px; border-radius: 11px; background: var(--colour, var(--line)); color: #1d2025;
  font: 600 12px/22px "Inter", "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; text-align: center; }
.result { display: grid; grid-template-columns: repeat(3, 1fr); gap: 22px; }
.result img, .result svg { border-radius: 12px; box-shadow: 0 1px 2px #0001, 0 10px 30px #00000014; }
.stack { position: relative; }
.stack img { box-shadow: none; }
.stack svg { position: absolute; inset: 0; width: 100%; height: 100%; }
svg.grid { display: block; width: 100%; height: auto; border-radius: 8px; background: rgb(238,236,230); }
svg.grid path { stroke: #3c4048; stroke-width: .06; fill: none; stroke-linecap: round; }
svg.grid text { font-size: .62px; font-weight: 600; text-anchor: middle; dominant-baseline: central;
  fill: #1d2025; }
svg.grid rect { stroke: #fff; stroke-width: .02; }
svg.over { background: none; }
svg.over .cells { opacity: .46; }
svg.over path { stroke: #fff; stroke-width: .05; }
svg.over text { paint-order: stroke; stroke: #fffc; stroke-width: .14; }
blockquote { margin: 0; padding: 20px 26px; background: var(--card); border: 1px solid var(--line);
  border-left: 4px solid var(--accent); border-radius: 6px 12px 12px 6px; font-size: 19px;
  white-space: pre-wrap; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(108px, 1fr)); gap: 16px; }
.card { position: relative; padding: 8px; background: var(--card); border: 1px solid var(--line);
  border-radius: 12px; border-top: 4px solid var(--colour, var(--line)); }
.card img { aspect-ratio: 1; object-fit: contain; background: var(--paper); }
.candidates { display: grid; grid-template-columns: repeat(auto-fill, minmax(400px, 1fr)); gap: 20px; }
.candidate { padding: 12px; background: var(--card); border: 1px solid var(--line); border-radius: 12px; }
.candidate.picked { border-color: var(--accent); box-shadow: 0 0 0 2px var(--accent); }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 10px; }
details { margin-top: 4px; } summary { cursor: pointer; color: var(--accent); }
.how { display: grid; grid-template-columns: 1fr 1fr; gap: 40px; }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th, td { text-align: left; padding: 7px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  font-weight: 400; }
th { color: var(--soft); width: 130px; padding-right: 14px; }
.time { display: grid; grid-template-columns: 150px 1fr 64px; align-items: center; gap: 12px; font-size: 13px;
  padding: 6px 0; color: var(--soft); }
.time i { height: 10px; border-radius: 5px; background: var(--accent); opacity: .75; min-width: 2px; }
.time.total { border-top: 1px solid var(--line); color: var(--ink); font-weight: 600; }
.time.total i { visibility: hidden; }
.time span:last-child { text-align: right; font-variant-numeric: tabular-nums; }
pre { margin: 36px 0 0; padding: 14px 18px; background: #2b2f36; color: #eceae4; border-radius: 10px;
  font: 13px/1.5 "DejaVu Sans Mono", Menlo, Consolas, monospace; white-space: pre-wrap;
  overflow-wrap: anywhere; }
@media (max-width: 760px) { .result, .how { grid-template-columns: 1fr; } h1.sentence { font-size: 24px; } }
@media print { body { background: #fff; } main { max-width: none; padding: 0; } }
"""
