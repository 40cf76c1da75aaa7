// Charts are SVG from the server. When the page is idle, figures with [data-figure] get Plotly over the SVG, coloured from the CSS tokens.
(() => {
  const figures = () => [...document.querySelectorAll("figure[data-figure]:not(.live)")];
  const probe = () => document.body.appendChild(Object.assign(document.createElement("span"), { hidden: true }));
  const tokens = (...names) => {
    const element = probe();
    const found = names.map((name) => { element.style.color = `var(--${name})`; return getComputedStyle(element).color; });
    element.remove();
    return found;
  };
  const theme = (layout) => {
    const [text, grid, line, paper, outline, ...series] = tokens("text3", "border", "line", "bg", "barmut", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8");
    const axis = { gridcolor: grid, zerolinecolor: line, linecolor: line, tickfont: { color: text } };
    return { ...layout, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", colorway: series,
      font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: text },
      hoverlabel: { bgcolor: paper, bordercolor: line, font: { color: tokens("text")[0] } },
      shapes: layout.shapes?.map((shape) => ({ ...shape, line: { ...shape.line, color: outline } })),
      xaxis: { ...layout.xaxis, ...axis }, yaxis: { ...layout.yaxis, ...axis, linecolor: "rgba(0,0,0,0)" } };
  };
  const draw = (figure) => {
    const { data, layout } = JSON.parse(document.getElementById(figure.dataset.figure).textContent);
    const box = figure.querySelector(".chart-live");
    const { tickvals, ticktext } = layout.xaxis ?? {};
    if (box.clientWidth < 480 && tickvals?.length > 12) {
      layout.xaxis.tickvals = tickvals.filter((_, index) => index % 5 === 0);
      layout.xaxis.ticktext = ticktext.filter((_, index) => index % 5 === 0);
    }
    const coloured = data.map((trace) => ({ ...trace, marker: { ...trace.marker, color: tokens(trace.meta?.token ?? "c1")[0], line: { color: tokens("bg")[0], width: data.length > 1 ? 1 : 0 } } }));
    window.Plotly.react(box, coloured, theme(layout), { displayModeBar: false, responsive: true }).then(() => figure.classList.add("live"));
  };
  const load = () => {
    if (!figures().length) return;
    if (window.Plotly) { figures().forEach(draw); return; }
    if (document.getElementById("plotly-script")) return;
    const { plotly, plotlyCss } = figures()[0].dataset;
    document.head.append(Object.assign(document.createElement("link"), { id: "plotly.js-style-global", className: "no-inline-styles", rel: "stylesheet", href: plotlyCss }));
    document.head.append(Object.assign(document.createElement("script"), { id: "plotly-script", src: plotly, onload: () => figures().forEach(draw) }));
  };
  const soon = () => (window.requestIdleCallback ?? setTimeout)(load);
  if (document.readyState === "complete") soon(); else addEventListener("load", soon);
  document.addEventListener("htmx:afterSettle", soon);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    if (window.Plotly) document.querySelectorAll("figure.live").forEach(draw);
  });
})();
