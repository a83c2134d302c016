"""Style sheet of the page; browsers accept no other, because the policy names its digest."""

import base64
import hashlib

STYLE = """
:root{color-scheme:light dark;--back:#fff;--text:#1b1f24;--muted:#57606a;--line:#dde2e7;--soft:#f5f7f9;
--good:#116329;--warn:#7d4e00;--bad:#b42318;--bar:#3578b5}
@media (prefers-color-scheme:dark){:root{--back:#12161b;--text:#e6eaee;--muted:#9aa5b1;--line:#2e363f;--soft:#1a2027;
--good:#56d364;--warn:#e3b341;--bad:#ff8a80;--bar:#6cb6ff}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:15px/1.45 system-ui,sans-serif;overflow-wrap:anywhere}
main{max-width:1280px;margin:auto;padding:16px 20px}
header{display:flex;gap:4px 16px;align-items:baseline;flex-wrap:wrap}
h1{font-size:20px;margin:0}
h2{font-size:16px;margin:24px 0 4px}
p{margin:4px 0}
i{font-style:normal;margin-left:.2em}
.muted{color:var(--muted)}
.good{color:var(--good)}.warn{color:var(--warn)}.bad{color:var(--bad)}
.overall{font-size:20px;font-weight:600;margin:12px 0;padding:10px 14px;border:1px solid;border-left-width:6px;
border-radius:6px}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(220px,100%),1fr));gap:12px;margin:0;padding:0;
list-style:none}
.tiles li{border:1px solid var(--line);border-radius:6px;padding:8px 12px}
.tiles b,.tiles span{display:block}
.tiles b{font-size:16px}
table{border-collapse:collapse;width:100%;table-layout:fixed}
th,td{text-align:left;vertical-align:top;padding:7px 12px 7px 0;font-weight:400}
thead th{font-weight:600;color:var(--muted);font-size:13px;overflow-wrap:normal}
tbody{border-top:1px solid var(--line)}
th[scope=row] b{font-weight:600}
th[scope=row] span,td>span.muted{display:block;font-size:13px}
.number{text-align:right;font-variant-numeric:tabular-nums;padding-right:24px}
.state{font-weight:600;white-space:nowrap}
.more td{padding:0 0 10px}
.more p{unicode-bidi:isolate}
.failure{border-left:4px solid;background:var(--soft);padding:6px 12px}
main>.failure{margin:12px 0}
.failure p{color:var(--text)}
.failure .error{font-family:ui-monospace,monospace;font-size:13px;white-space:pre-wrap}
.failure .muted{color:var(--muted);font-size:13px}
svg{display:block;width:100%;max-width:180px;height:24px;color:var(--bar)}
.job{width:25%}.narrow{width:10%}.figures{width:17%}
footer{margin:24px 0 8px;font-size:13px;color:var(--muted)}
a{color:inherit}
@media (max-width:800px){
main{padding:12px}
thead{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
table,tbody{display:block}
tr{display:grid;grid-template-columns:1fr 1fr 1fr;gap:0 12px;padding:6px 0}
th,td{padding:0 0 4px}
th[scope=row]{grid-column:1/3}
.number{text-align:left}
.state{text-align:right}
td[data-label]::before{content:attr(data-label);display:block;font-size:12px;color:var(--muted)}
td.figures{grid-column:span 2;width:auto}
.more{display:block;padding:0}
.more td{display:block}
}
"""
DIGEST = "sha256-" + base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
