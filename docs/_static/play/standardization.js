/* Weight standardization of a 3 x 3 filter, in two readings, with what the filter lets pass. */
"use strict";
(() => {
  const PRESETS = {
    smooth: [1, 2, 1, 2, 4, 2, 1, 2, 1].map((v) => v / 16), edge: [-1, 0, 1, -2, 0, 2, -1, 0, 1].map((v) => v / 4),
    point: [0, 0, 0, 0, 1, 0, 0, 0, 0], sharpen: [0, -0.25, 0, -0.25, 2, -0.25, 0, -0.25, 0], positive: [0.4, 0.5, 0.6, 0.5, 0.7, 0.5, 0.6, 0.5, 0.4],
  };
  const OTHERS = [PRESETS.edge, [-0.5, -0.2, 0.1, 0.3, -0.6, 0.2, -0.1, 0.4, -0.3], [-0.3, -0.5, -0.2, -0.6, -0.4, -0.1, -0.5, -0.2, -0.3]];
  const SIDE = 41, EPS = 1e-5;
  const root = document.getElementById("play-standardization"), controls = play.element("div", { class: "controls" });
  const grid = play.element("div", { class: "grid", role: "group", "aria-label": "The filter" }), row = play.element("div", { class: "row" });
  const panels = play.element("div", { class: "panels" }), table = play.element("table", { id: "ws-results" });
  root.append(controls, grid, row, panels, table);
  const per = play.choice(controls, {
    id: "ws-per", label: "Mean and deviation over", options: { layer: "all filters of the layer (this one and three others)", filter: "each filter by itself" },
  }, update);
  const cells = PRESETS.smooth.map((_, k) => {
    const name = `row ${Math.floor(k / 3) + 1}, column ${(k % 3) + 1}`;
    const input = play.element("input", { type: "number", step: 0.05, id: `ws-cell-${k}`, "aria-label": name });
    input.addEventListener("input", update);
    grid.append(input);
    return input;
  });
  for (const [name, values] of Object.entries(PRESETS)) play.button(row, `ws-${name}`, name, () => set(values));
  const before = play.picture(panels, "ws-before", "lets pass, as it is: slow waves in the middle", "frequency response of the filter");
  const after = play.picture(panels, "ws-after", "lets pass, standardized", "frequency response of the standardized filter");

  function set(values) {
    values.forEach((value, k) => { cells[k].value = Number(value.toFixed(4)); });
    update();
  }

  /** Return the filter standardized over itself, or over the layer. */
  function standardize(filter, per) {
    const values = per === "filter" ? filter : [filter, ...OTHERS].flat();
    const mean = play.mean(values), deviation = play.deviation(values);
    return filter.map((v) => (v - mean) / (deviation + EPS));
  }

  /** Return |Σ w exp(-i(ωu + ηv))| for frequencies from -π to π. */
  function response(filter) {
    const frequencies = play.range(0, SIDE - 1).map((k) => Math.PI * ((2 * k) / (SIDE - 1) - 1));
    return frequencies.map((a) => frequencies.map((b) => {
      let real = 0, imaginary = 0;
      filter.forEach((w, k) => {
        const phase = a * (Math.floor(k / 3) - 1) + b * ((k % 3) - 1);
        real += w * Math.cos(phase);
        imaginary -= w * Math.sin(phase);
      });
      return Math.hypot(real, imaginary);
    }));
  }

  function update() {
    const filter = cells.map((cell) => Number(cell.value) || 0), standardized = standardize(filter, per.value);
    const rows = [["as it is", filter, "before"], ["standardized", standardized, "after"]];
    for (const [picture, values] of [[before, filter], [after, standardized]]) {
      const passed = response(values);
      picture.draw(passed, 0, Math.max(1e-9, ...passed.flat()));
    }
    table.replaceChildren(
      play.element("tr", {}, ...["The filter", "sum: what a flat area of 1 becomes", "mean", "deviation"].map((t) => play.element("th", {}, t))),
      ...rows.map(([words, values, id]) => {
        const sum = values.reduce((total, v) => total + v, 0);
        return play.element(
          "tr", {}, play.element("td", {}, words), play.element("td", { id: `ws-sum-${id}`, "data-value": sum }, play.fixed(sum)),
          play.element("td", {}, play.fixed(play.mean(values))), play.element("td", { id: `ws-deviation-${id}` }, play.fixed(play.deviation(values))),
        );
      }),
    );
  }
  play.standardize = standardize;
  set(PRESETS.smooth);
})();
