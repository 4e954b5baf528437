"""How the page looks: quiet, printable, and readable by day and by night."""

from __future__ import annotations

CSS = """
:root{--ink:#1d2430;--soft:#5d6878;--line:#dfe4ea;--paper:#fff;--tint:#f5f7fa;--good:#13795b;--bad:#b3261e;--blue:#2457a6;
--goodbg:#e3f4ec;--badbg:#fdeceb}
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--line:#333c48;--paper:#14181e;--tint:#1c222a;
--good:#5fd0a5;--bad:#ff8a80;--blue:#8ab4f8;--goodbg:#123327;--badbg:#3b1b19}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,"Segoe UI",sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 24px 60px}
h1{font-size:27px;margin:0 0 4px;letter-spacing:-.01em}h2{font-size:19px;margin:0 0 4px}
h3{font-size:15px;margin:18px 0 6px}
.domain{color:var(--blue)}
section{margin-top:34px;border-top:1px solid var(--line);padding-top:18px}
.small{color:var(--soft);font-size:13px}
.big{font-size:19px;font-weight:600;margin:0;padding:8px 14px;border-radius:8px;display:inline-block}
.big.good{background:var(--goodbg);color:var(--good)}.big.bad{background:var(--badbg);color:var(--bad)}
.numbers{display:flex;flex-wrap:wrap;gap:10px;margin:14px 0}
.numbers div{background:var(--tint);border-radius:8px;padding:8px 16px;font-size:13px;color:var(--soft)}
.numbers b{display:block;font-size:22px;color:var(--ink);line-height:1.2}
table{border-collapse:collapse;width:100%;font-size:14px}
td,th{text-align:left;padding:6px 12px 6px 0;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;white-space:nowrap}.number{text-align:right;font-variant-numeric:tabular-nums}
.badge{display:inline-block;min-width:34px;text-align:center;border-radius:10px;padding:0 9px;font-size:12.5px;
font-weight:600;white-space:nowrap}
.badge.good{background:var(--goodbg);color:var(--good)}.badge.bad{background:var(--badbg);color:var(--bad)}
.badge.none{background:var(--tint);color:var(--soft)}
code,pre{font:12.5px/1.45 ui-monospace,"SF Mono",Menlo,Consolas,monospace}code.bad{color:var(--bad)}
a{color:var(--blue)}
.problems li{margin:3px 0}
svg{display:block;width:100%;height:auto;margin:8px 0}
svg text{font:13px system-ui,sans-serif;fill:var(--ink)}
.graph{max-width:1100px}.graph .node rect{fill:var(--tint);stroke:var(--soft)}
.graph .node.user rect{fill:var(--blue);stroke:var(--blue)}.graph .node.user text{fill:var(--paper)}
.graph .node.service rect{stroke-dasharray:4 3}.graph .node text{text-anchor:middle;font-weight:600}
path.edge{fill:none;stroke:var(--soft)}path.edge.bad{fill:none;stroke:var(--bad);stroke-dasharray:5 4}
text.count{text-anchor:middle;font-size:12px;fill:var(--soft);paint-order:stroke;stroke:var(--paper);stroke-width:5px}
text.count.bad{fill:var(--bad)}
.head{fill:var(--soft)}path.bad{fill:var(--bad)}
.timeline .grid,.timeline .row{stroke:var(--line)}.timeline .tick{font-size:11.5px;fill:var(--soft)}
.timeline .who{text-anchor:end;font-size:13px}
.dot.ok{fill:var(--good)}.dot.ok.answer{fill:var(--blue);opacity:.65}
.dot.open{fill:var(--paper);stroke:var(--soft);stroke-width:1.5}
.dot.refused{fill:var(--bad)}
.story{border:1px solid var(--line);border-radius:10px;padding:10px 16px;margin:10px 0}
summary{cursor:pointer}.story>summary{font-size:15px}
.sequence .life{stroke:var(--line)}.sequence .name{text-anchor:middle;font-weight:600}
.sequence .label{text-anchor:middle;font-size:12px;fill:var(--soft);paint-order:stroke;stroke:var(--paper);
stroke-width:4px}
.sequence .label.start{text-anchor:start}.sequence .label.bad{fill:var(--bad)}
.sequence line.ask{stroke:var(--ink);stroke-width:1.4}.sequence line.answer{stroke:var(--soft);stroke-dasharray:4 3}
.sequence path{fill:none;stroke:var(--soft)}.sequence marker path{stroke:none;fill:var(--soft)}
.sequence marker path.bad{fill:var(--bad)}
.sequence line.bad,.sequence path.bad{fill:none;stroke:var(--bad);stroke-width:1.4}
ol{list-style:none;padding:0;margin:8px 0}
ol>li{border-left:3px solid var(--line);padding:2px 0 2px 12px;margin:2px 0;font-size:14px}
ol>li.ok{border-color:var(--good)}ol>li.refused{border-color:var(--bad)}
.time{color:var(--soft);display:inline-block;min-width:74px;font-variant-numeric:tabular-nums;font-size:12.5px}
.kind{color:var(--soft);font-size:12.5px;text-transform:uppercase;letter-spacing:.04em}
.state{font-size:12.5px;color:var(--soft)}.state.refused{color:var(--bad);font-weight:600}
dl{display:grid;grid-template-columns:max-content 1fr;gap:2px 14px;margin:6px 0;font-size:13px}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}
pre{background:var(--tint);border-radius:6px;padding:8px 10px;overflow:auto;max-height:320px;white-space:pre-wrap;
overflow-wrap:anywhere;margin:6px 0}
footer{margin-top:40px;color:var(--soft);font-size:13px}
@media print{.story{break-inside:avoid}main{max-width:none}}
"""
