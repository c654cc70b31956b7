/* GroupNorm and BatchNorm under a slider of batch size: what an image becomes, and on whom that depends. */
"use strict";
(() => {
  const CHANNELS = 8, PIXELS = 24, MOST = 16;
  const root = document.getElementById("play-norms"), controls = play.element("div", { class: "controls" });
  const row = play.element("div", { class: "row" }), panels = play.element("div", { class: "panels" });
  const table = play.element("table", { id: "norms-results" });
  root.append(controls, row, panels, table);
  const count = play.slider(controls, { id: "norms-batch", label: "Images in the batch", values: play.range(1, MOST), value: 2 }, update);
  const groups = play.slider(controls, { id: "norms-groups", label: "Groups of GroupNorm (of 8 channels)", values: [1, 2, 4, 8], value: 4 }, update);
  let seed = 1;
  play.button(row, "norms-again", "Draw the other images again", () => { seed += 1; update(); });
  const shown = ["as it comes", "after BatchNorm", "after GroupNorm"].map((words, k) => play.picture(
    panels, `norms-picture-${k}`, `the first image, ${words}`, `8 channels, one a row, of the first image, ${words}`,
  ));

  /** Return an image: 8 channels of 24 numbers, with a brightness and a contrast of its own. */
  function image(seed) {
    const normal = play.normal(seed), brightness = 1.5 * normal(), contrast = Math.exp(0.6 * normal());
    return play.range(1, CHANNELS).map((c) => play.range(1, PIXELS).map(
      (p) => brightness + contrast * (Math.sin((p * c) / 5 + c) + 0.4 * normal()) + 0.5 * Math.cos(c),
    ));
  }

  /** Return numbers less the mean of a set that they belong to, over its deviation. */
  function normalize(own, set) {
    const mean = play.mean(set), deviation = play.deviation(set);
    return own.map((v) => (v - mean) / Math.sqrt(deviation ** 2 + 1e-5));
  }

  const batchNorm = (batch) => batch[0].map((own, c) => normalize(own, batch.flatMap((image) => image[c])));

  function groupNorm(image, G) {
    const size = CHANNELS / G;
    return image.map((own, c) => {
      const first = size * Math.floor(c / size);
      return normalize(own, image.slice(first, first + size).flat());
    });
  }

  function update() {
    const first = image(11), batch = (seed) => [first, ...play.range(1, MOST - 1).map((k) => image(1000 * seed + k)).slice(0, count.value - 1)];
    const results = [first, batchNorm(batch(seed)), groupNorm(first, groups.value)];
    const own = play.mean(first.flat()), range = 2.5 * play.deviation(first.flat());
    results.forEach((rows, k) => shown[k].draw(rows, ...(k ? [-2.5, 2.5] : [own - range, own + range])));
    // How much the first image's numbers vary over twenty draws of the others: the deviation of each, on the mean.
    const draws = play.range(1, 20).map((k) => batchNorm(batch(100 + k)).flat());
    const spread = play.mean(draws[0].map((_, i) => play.deviation(draws.map((draw) => draw[i]))));
    const line = (words, rows, depends, id) => play.element(
      "tr", {}, play.element("td", {}, words),
      ...[play.mean(rows.flat()), play.deviation(rows.flat())].map((v) => play.element("td", {}, play.fixed(v))),
      play.element("td", { id, "data-value": depends }, play.fixed(depends)),
    );
    table.replaceChildren(
      play.element("tr", {}, ...["The first image", "mean", "deviation", "changes with the others by"].map((t) => play.element("th", {}, t))),
      line("as it comes", results[0], 0, "norms-none"),
      line("after BatchNorm", results[1], spread, "norms-batch-spread"),
      line("after GroupNorm", results[2], 0, "norms-group-spread"),
    );
  }
  play.norms = { image, batchNorm, groupNorm };
  update();
})();
