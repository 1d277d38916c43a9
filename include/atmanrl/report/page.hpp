#pragma once

/// \file
/// The frame of a page: one file that opens from disk. Style and script stand inside it, the browser is told to load
/// nothing (Content-Security-Policy), and without the script only the immediate display of values under the pointer is
/// missing.

#include <atmanrl/core/config.hpp>
#include <atmanrl/report/html.hpp>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace atmanrl::inline ATMANRL_ABI::html {

namespace detail {

// Lines --c0 to --c5: after Okabe and Ito's palette, darkened or lightened to a contrast of at least 4.5 with the
// ground. Tokens --t0 to --t8: one hue in equal steps of OKLab lightness, so that the order is seen without colour
// vision and in grey; the text on each step has a contrast of at least 4.7.
inline constexpr std::string_view style = R"css(
:root{color-scheme:light;--bg:#fff;--panel:#f6f7f9;--ink:#1c2127;--soft:#57606a;--rule:#d5dbe1;--link:#0b5cad;--good:#00704f;
--bad:#a8410a;
--c0:#0072b2;--c1:#c24e00;--c2:#00805c;--c3:#a23b79;--c4:#57606a;--c5:#7a6200;
--t0:#f7f8fa;--t1:#d9e7f3;--t2:#bbd5ec;--t3:#9dc4e5;--t4:#7fb2dd;--t5:#6294c3;--t6:#4576aa;--t7:#295991;--t8:#0b3d78;--low:#14181d;
--turn:#14181d;--high:#fff}
@media screen and (prefers-color-scheme:dark){:root{color-scheme:dark;--bg:#14171a;--panel:#1c2126;--ink:#e6e9ec;--soft:#a3acb6;
--rule:#363d45;
--link:#7ab8ff;--good:#4fd1a5;--bad:#ff9a66;--c0:#56b4e9;--c1:#ff9050;--c2:#2dc79a;--c3:#e59ac6;--c4:#b8c0c8;--c5:#e8c547;
--t0:#1f252b;--t1:#253648;--t2:#294866;--t3:#2d5b87;--t4:#2f6ea8;--t5:#548abe;--t6:#77a6d3;--t7:#9bc3e9;--t8:#bfe0ff;--low:#fff;
--turn:#0b0e11;--high:#0b0e11}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif}
main,header.top,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header.top{padding-top:36px}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 .35rem;font-weight:650;letter-spacing:-.01em}
h2{font-size:1.2rem;margin:2.6rem 0 .8rem;padding-bottom:.35rem;border-bottom:1px solid var(--rule);font-weight:640}
h3{font-size:1rem;margin:1.6rem 0 .5rem;font-weight:640}
p{margin:.4rem 0 .8rem;max-width:76ch}
a{color:var(--link)}
.soft,footer{color:var(--soft)}
.skip{position:absolute;left:-999px}.skip:focus{left:8px;top:8px;background:var(--bg);padding:8px}
nav ul{list-style:none;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:0;margin:.8rem 0 0;font-size:.92rem}
.notes{background:var(--panel);border-left:4px solid var(--bad);padding:.6rem 1rem;margin:1.2rem 0;border-radius:4px}
.notes ul{margin:.2rem 0;padding-left:1.2rem}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(160px,1fr));gap:12px;margin:1.4rem 0 0}
.cards div{background:var(--panel);border-radius:8px;padding:12px 14px}
.cards dt{color:var(--soft);font-size:.82rem}
.cards div{display:flex;flex-direction:column}
.cards dt{flex:1}
.cards dd{margin:.1rem 0 0;font-size:1.08rem;white-space:nowrap;font-weight:620;font-variant-numeric:tabular-nums;
line-height:1.3}
.cards dd small{display:block;white-space:normal;min-height:1.3em;font-size:.78rem;font-weight:400;color:var(--soft)}
.grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,330px),1fr));gap:22px 26px;margin:1rem 0}
figure{margin:0;min-width:0}
figcaption{font-size:.92rem}
figcaption b{font-weight:640}
figcaption span{color:var(--soft)}
.legend{list-style:none;display:flex;flex-wrap:wrap;gap:0 .9rem;padding:0;margin:.1rem 0 .2rem;font-size:.8rem;
color:var(--soft)}
.legend svg{width:24px;height:10px;margin-right:.35rem;vertical-align:middle;display:inline-block}
.chart svg.plot{width:100%;height:auto;display:block;overflow:visible}
svg text{fill:var(--soft);font:11px system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Liberation Sans",sans-serif}
svg .g{stroke:var(--rule);stroke-width:1}
svg .l{fill:none;stroke-width:1.8;stroke-linejoin:round;stroke-linecap:round}
svg .raw{opacity:.38;stroke-width:1}
svg .b{stroke:none;opacity:.16}
svg .h rect{fill:transparent}svg .h path{stroke:var(--soft);opacity:0}svg .h:hover path{opacity:.7}
.s0{stroke:var(--c0)}.s1{stroke:var(--c1)}.s2{stroke:var(--c2)}.s3{stroke:var(--c3)}.s4{stroke:var(--c4)}.s5{stroke:var(--c5)}
.f0{fill:var(--c0)}.f1{fill:var(--c1)}.f2{fill:var(--c2)}.f3{fill:var(--c3)}.f4{fill:var(--c4)}.f5{fill:var(--c5)}
.sc{stroke:var(--soft)}.fc{fill:var(--soft)}svg .l.sc{stroke-width:1.1}
.hollow{fill:var(--bg);stroke-width:1.8}
table{border-collapse:collapse;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;color:var(--soft);font-size:.88rem;padding:0 0 .5rem}
th,td{text-align:left;padding:.35rem .9rem .35rem 0;border-bottom:1px solid var(--rule);vertical-align:top;
font-weight:400}
thead th{color:var(--soft);font-size:.82rem;border-bottom-color:var(--soft);white-space:nowrap}
td.n,th.n{text-align:right}
td svg{display:block}
.wide{overflow-x:auto}
.wide td{white-space:nowrap}
.wide:focus-visible{outline:2px solid var(--link)}
.values td,.values th{font-size:.78rem;padding:.15rem .7rem .15rem 0;white-space:nowrap}
.completions{width:100%}
.completions td.cot{width:60%}
.completions tbody th[scope=row]{white-space:nowrap}
.completions .verdict{white-space:nowrap}
.completions .q{background:var(--panel);padding:.5rem .7rem}
.completions .q b{font-weight:640}
.completions tr.last>*{border-bottom:0}
.completions td,.completions tbody th{padding-top:.6rem;padding-bottom:.6rem}
.t{font:.86rem/1.75 ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono","Liberation Mono",monospace;
white-space:pre-wrap;
overflow-wrap:anywhere;
unicode-bidi:isolate;margin:0;max-width:none}
.t span{border-radius:2px;padding:.12em 0;-webkit-box-decoration-break:clone;box-decoration-break:clone}
.t0,.t1,.t2,.t3,.t4{color:var(--low)}.t5{color:var(--turn)}.t6,.t7,.t8{color:var(--high)}
.t0{background:var(--t0)}.t1{background:var(--t1)}.t2{background:var(--t2)}.t3{background:var(--t3)}.t4{background:var(--t4)}
.t5{background:var(--t5)}.t6{background:var(--t6)}.t7{background:var(--t7)}.t8{background:var(--t8)}
.t span:hover{outline:1.5px solid var(--ink)}
.t .rest{color:var(--soft)}
.t .sign{opacity:.55}
.scale{display:flex;align-items:center;gap:.5rem;font-size:.82rem;color:var(--soft);margin:.3rem 0 .7rem;flex-wrap:wrap}
.scale i{display:inline-flex;border:1px solid var(--rule);border-radius:3px;overflow:hidden}
.scale i b{width:18px;height:12px}
.top5{font-size:.8rem;color:var(--soft);margin:.25rem 0 0}
.good{color:var(--good)}.bad{color:var(--bad)}
.parts{display:grid;grid-template-columns:auto auto;gap:0 .6rem;margin:0;justify-content:start}
.parts dt{color:var(--soft);font-size:.82rem;padding-top:.05rem}.parts dd{margin:0;text-align:right}
.facts{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1.2rem;margin:.5rem 0;font-size:.9rem}
.facts dt{color:var(--soft)}.facts dd{margin:0;overflow-wrap:anywhere}
details{margin:.5rem 0}
summary{cursor:pointer;color:var(--link)}
pre.t{background:var(--panel);border-radius:6px;padding:.6rem .8rem;line-height:1.5;max-height:24rem;overflow:auto}
.item+.item{border-top:1px solid var(--rule);padding-top:.4rem;margin-top:2rem}
.columns{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,300px),1fr));gap:18px 26px;margin:.8rem 0}
.tip{position:fixed;z-index:9;pointer-events:none;background:var(--ink);color:var(--bg);padding:5px 9px;
border-radius:5px;font-size:.8rem;
line-height:1.4;
white-space:pre;font-variant-numeric:tabular-nums;max-width:92vw;overflow:hidden}
footer{font-size:.84rem;padding-top:2rem;padding-bottom:3rem}
@media(max-width:760px){main,header.top,footer{padding-left:16px;padding-right:16px}
.completions,.completions tbody,.completions tr,.completions td,.completions caption,
.completions tbody th{display:block;
width:auto!important;text-align:left}.completions thead{display:none}
.completions td,.completions tbody th{border-bottom:0;padding:.15rem 0}
.completions tr{border-bottom:1px solid var(--rule);
padding:.5rem 0}
.completions td[data-name]::before{content:attr(data-name);color:var(--soft);font-size:.8rem;display:block}
.facts{grid-template-columns:1fr;gap:0}.facts dd{margin-bottom:.35rem}}
@media print{body{font-size:11px}main,header.top,footer{max-width:none;padding-left:0;padding-right:0}nav,.tip,.skip{display:none}
.chart,tr,.item figure{break-inside:avoid}h2,h3{break-after:avoid}.grid{grid-template-columns:repeat(3,1fr)}
.t span,.scale b,.q,.cards div,svg{-webkit-print-color-adjust:exact;print-color-adjust:exact}}
)css";

// Browsers show titles late and not at all on touch screens; this shows them at once.
inline constexpr std::string_view script = R"js(
(function(){
  var tip=document.createElement('div');tip.className='tip';tip.hidden=true;document.body.appendChild(tip);
  function text(e){
    var own=e.querySelector&&e.querySelector(':scope>title');
    if(own){e.dataset.tip=own.textContent;own.remove()}
    else if(e.title){e.dataset.tip=e.title;e.removeAttribute('title')}
    return e.dataset.tip;
  }
  document.addEventListener('pointerover',function(event){
    var e=event.target.closest&&event.target.closest('.h,.t [title],.t [data-tip]');
    if(!e){tip.hidden=true;return}
    tip.textContent=text(e);tip.hidden=false;
  });
  document.addEventListener('pointermove',function(event){
    if(tip.hidden)return;
    var w=tip.offsetWidth,h=tip.offsetHeight,x=event.clientX+14,y=event.clientY+16;
    if(x+w>innerWidth-6)x=event.clientX-w-14;
    if(y+h>innerHeight-6)y=event.clientY-h-12;
    tip.style.left=Math.max(4,x)+'px';tip.style.top=Math.max(4,y)+'px';
  });
  document.addEventListener('scroll',function(){tip.hidden=true},true);
})();
)js";

}  // namespace detail

/// A whole document. `title` is text, `body` is HTML.
[[gnu::cold]] inline std::string document(std::string_view title, std::string_view body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'\">\n"
      "<meta name=\"referrer\" content=\"no-referrer\">\n<title>{}</title>\n"
      "<style>{}</style>\n</head>\n<body>\n{}<script>{}</script>\n</body>\n</html>\n",
      escape(title), detail::style, body, detail::script);
}

/// The page's head: title, a line below it, links to the sections. All but `title` and the names are HTML.
[[gnu::cold]] inline std::string heading(std::string_view title, std::string_view line,
                                         std::vector<std::pair<std::string, std::string>> const& sections) {
  std::string out = fmt::format(
      "<a class=\"skip\" href=\"#content\">To the content</a>\n<header class=\"top\">\n<h1>{}</h1>\n<p "
      "class=\"soft\">{}</p>\n",
      escape(title), line);
  if (sections.size() > 1) {
    out += "<nav aria-label=\"Sections\"><ul>";
    for (auto const& [id, name] : sections) out += fmt::format("<li><a href=\"#{}\">{}</a></li>", id, escape(name));
    out += "</ul></nav>\n";
  }
  return out + "</header>\n";
}

/// What the reader should know about the data, or nothing.
inline std::string notes(std::vector<std::string> const& sentences) {
  if (sentences.empty()) return {};
  std::string out = "<aside class=\"notes\" aria-label=\"Notes\"><ul>";
  for (std::string const& s : sentences) out += "<li>" + escape(s) + "</li>";
  return out + "</ul></aside>\n";
}

/// Names and values, both text.
inline std::string facts(std::vector<std::pair<std::string, std::string>> const& pairs) {
  if (pairs.empty()) return {};
  std::string out = "<dl class=\"facts\">";
  for (auto const& [name, value] : pairs)
    out += "<dt>" + escape(name) + "</dt><dd>" + escape_front(value, 2000) + "</dd>";
  return out + "</dl>\n";
}

}  // namespace atmanrl::inline ATMANRL_ABI::html
