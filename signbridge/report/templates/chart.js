"use strict";
// Charts: every figure with a description in JSON becomes a chart of Apache ECharts when it comes into view.
// What the pointer shows, the arrow keys show too. Text from data is only ever set as text.
(() => {
  // One item, or all items at one place of the horizontal axis.
  function tip(given) {
    const items = [given].flat().filter((one) => one.data && one.data.tip);
    if (!items.length) return "";
    const made = element("div", "tip");
    const image = items[0].data.image;
    if (image in pictures) {
      const shown = thumbnail("thumb", "");
      shown.src = pictures[image];
      made.append(shown);
    }
    const words = element("div");
    if (Array.isArray(given)) words.append(element("strong", "", items[0].data.head));
    for (const item of items) words.append(element("div", "", item.data.tip));
    made.append(words);
    return made;
  }

  const draw = {
    band: (rows) => (params, api) => {
      if (params.context.drawn) return null;
      params.context.drawn = true;
      const up = rows.map((r) => api.coord([r[0], r[2]])), down = rows.map((r) => api.coord([r[0], r[1]]));
      return { type: "polygon", shape: { points: [...up, ...down.reverse()] },
               style: { fill: api.visual("color"), opacity: 0.17 }, silent: true };
    },
    interval: () => (params, api) => {
      const low = api.coord([api.value(0), api.value(1)]), high = api.coord([api.value(0), api.value(2)]);
      return { type: "line", shape: { x1: low[0], y1: low[1], x2: high[0], y2: high[1] },
               style: { stroke: api.visual("color"), lineWidth: 1.4 }, silent: true };
    },
  };

  function prepared(option) {
    for (const series of [option.series || []].flat()) {
      if (series.type === "custom") series.renderItem = draw[series.renderItem](series.data);
    }
    return option;
  }

  function start(figure) {
    const box = figure.querySelector(".chart");
    const spec = JSON.parse(figure.querySelector("script[type='application/json']").textContent);
    const narrow = () => box.clientWidth < spec.narrow;
    box.style.height = `${spec.height[narrow() ? 1 : 0]}px`;
    const chart = echarts.init(box, null, { renderer: "canvas" });
    const option = prepared(spec.option.baseOption || spec.option);
    option.tooltip.formatter = tip;
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) option.animation = false;
    chart.setOption(spec.option);
    if (spec.map) drawMap(figure, chart, spec.map);

    let at = -1;
    const series = () => chart.getOption().series.findIndex((one) => one.data && one.data.some((d) => d && d.tip));
    const show = (step) => {
      const which = series();
      if (which < 0) return;
      const length = chart.getOption().series[which].data.length;
      at = at < 0 ? 0 : Math.min(length - 1, Math.max(0, at + step));
      chart.dispatchAction({ type: "showTip", seriesIndex: which, dataIndex: at });
    };
    box.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -spec.columns, ArrowDown: spec.columns };
      if (event.key === "Escape") chart.dispatchAction({ type: "hideTip" });
      else if (steps[event.key]) { show(steps[event.key]); event.preventDefault(); }
    });
    box.addEventListener("blur", () => chart.dispatchAction({ type: "hideTip" }));

    const slider = figure.querySelector("input[type='range']");
    if (slider) {
      const choose = () => {
        const frame = spec.frames[Number(slider.value)];
        figure.querySelector("output").textContent = frame.name;
        slider.setAttribute("aria-valuetext", frame.name);
        chart.setOption(prepared(structuredClone(frame.option)));
      };
      slider.addEventListener("input", choose);
      choose();
    }
    new ResizeObserver(() => {
      box.style.height = `${spec.height[narrow() ? 1 : 0]}px`;
      chart.resize();
    }).observe(box);
  }

  document.documentElement.classList.add("js");
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      seen.unobserve(entry.target);
      start(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const box of document.querySelectorAll("figure .chart")) seen.observe(box.closest("figure"));
})();
