"use strict";
// A map: points as pictures, class names or dots, without overlap; a slider moves them from layer to layer.
function drawMap(figure, chart, map) {
  const palette = ["#0072b2", "#d55e00", "#007a5e", "#8a5a00", "#a2437f", "#1a1a1a", "#2a7fb8", "#b3261e", "#5b7a00", "#6a4fb3", "#00788a", "#7a5c4a"];
  const slider = figure.querySelector("input[type='range']");
  const controls = element("div", "choices");

  function select(name, choices) {
    const label = element("label", "", `${name} `), made = element("select");
    for (const [value, text] of choices) {
      const option = element("option", "", text);
      option.value = value;
      made.append(option);
    }
    label.append(made);
    controls.append(label);
    return made;
  }

  const shown = map.rows.filter((row) => row in pictures).length;
  const marks = select("Points", [["name", "class names"], ...(shown ? [["picture", "pictures"]] : []), ["dot", "dots"]]);
  const colours = select("Colour", [["right", "read right or wrong"], ["class", "class"], ...(map.groups ? [["group", map.group_word]] : [])]);
  figure.querySelector(".chart").before(controls);

  const name = (k) => map.classes[k];

  function words(i, read) {
    const lines = [`${name(map.label[i])}, ${read < 0 ? "not scored" : `read as ${name(read)}`}`];
    if (map.answer) lines.push(`says ${map.answers[map.answer[i]]}`);
    if (map.choice) lines.push(`would say ${name(map.choice[i])}`);
    if (map.groups) lines.push(`by ${map.groups[map.group[i]]}`);
    return [...lines, map.ids[i]].join("\n");
  }

  // Which points have room for their mark: the first of each place, so that the choice is stable.
  function roomy(places, sizes) {
    const taken = [], found = new Set();
    places.forEach(([x, y], i) => {
      const [w, h] = sizes(i);
      if (!w || x < 0 || y < 0 || x > chart.getWidth() || y > chart.getHeight()) return;
      if (taken.some((t) => Math.abs(t[0] - x) < (t[2] + w) / 2 && Math.abs(t[1] - y) < (t[3] + h) / 2)) return;
      taken.push([x, y, w, h]);
      found.add(i);
    });
    return found;
  }

  function draw() {
    const frame = slider ? Number(slider.value) : 0;
    const [xs, ys] = map.place[frame], read = map.read[frame];
    const side = chart.getWidth() < 480 ? 26 : 34;
    const places = xs.map((x, i) => chart.convertToPixel({ gridIndex: 0 }, [x, ys[i]]));
    const text = (i) => { const t = name(map.label[i]); return t.length > 12 ? `${t.slice(0, 11)}…` : t; };
    const sizes = {
      name: (i) => [10 + 8 * text(i).length, 19],
      picture: (i) => (map.rows[i] in pictures ? [side, side + 12] : [0, 0]),
      dot: () => [0, 0],
    }[marks.value];
    const marked = roomy(places, sizes);
    const dots = xs.map((x, i) => {
      const right = read[i] === map.label[i];
      const colour = colours.value === "right" ? (read[i] < 0 ? "#767676" : palette[right ? 0 : 1])
        : palette[(colours.value === "class" ? map.label[i] : map.group[i]) % palette.length];
      return {
        id: `p${i}`, value: [x, ys[i]], tip: words(i, read[i]), image: map.rows[i],
        symbol: "circle", symbolSize: 7,
        itemStyle: { color: right ? colour : "#fff", borderColor: colour, borderWidth: 1.4, opacity: marked.has(i) ? 1 : 0.8 },
      };
    });
    // A picture stands above its point, a name on it.
    const over = [...marked].map((i) => {
      const dot = dots[i], [w, h] = sizes(i);
      if (marks.value === "picture") {
        return { ...dot, symbol: `image://${pictures[map.rows[i]]}`, symbolSize: side, symbolOffset: [0, -side / 2 - 5] };
      }
      const colour = read[i] === map.label[i] ? "#fff" : dot.itemStyle.borderColor;
      return {
        ...dot, symbol: "roundRect", symbolSize: [w - 2, h - 2],
        label: { show: true, formatter: () => text(i), color: colour, fontSize: 12, fontWeight: "bold" },
      };
    });
    chart.setOption({ series: [
      { id: "dots", type: "scatter", data: dots },
      { id: "marks", type: "scatter", z: 3, data: over },
    ] });
  }

  draw();
  for (const control of [marks, colours]) control.addEventListener("change", draw);
  if (slider) slider.addEventListener("input", draw);
  chart.on("datazoom", draw);
  new ResizeObserver(draw).observe(figure.querySelector(".chart"));
}
