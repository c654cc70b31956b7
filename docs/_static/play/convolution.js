/* A kernel that is dragged over an image of three channels: the depthwise half, the pointwise half, and the count. */
"use strict";
(() => {
  const SIZE = 18, OUT = SIZE - 2;
  const KERNELS = {
    smooth: [1, 1, 1, 1, 1, 1, 1, 1, 1].map((v) => v / 9), "left to right": [-1, 0, 1, -2, 0, 2, -1, 0, 1].map((v) => v / 4),
    "top to bottom": [-1, -2, -1, 0, 0, 0, 1, 2, 1].map((v) => v / 4), spots: [0, -1, 0, -1, 4, -1, 0, -1, 0].map((v) => v / 4),
  };
  const NAMES = ["red", "green", "blue"];
  const root = document.getElementById("play-convolution"), controls = play.element("div", { class: "controls" });
  const stage = play.element("div", {
    class: "panels", id: "convolution-stage", tabindex: 0, role: "application",
    "aria-label": "The kernel's place: drag it, or press the arrow keys",
  });
  const results = play.element("div", { class: "panels" }), row = play.element("div", { class: "row" });
  const count = play.element("p", { id: "convolution-count", "aria-live": "polite" }), table = play.element("table", { id: "convolution-costs" });
  root.append(stage, results, count, row, controls, table);
  const image = NAMES.map((_, c) => play.range(0, SIZE - 1).map((i) => play.range(0, SIZE - 1).map((j) => {
    const round = Math.hypot(i - 6, j - 7) < 4.5, ring = Math.abs(Math.hypot(i - 11, j - 11) - 5) < 1;
    return [0.15 + 0.7 * round + 0.1 * ring, 0.2 + 0.6 * ring + (j > 13 ? 0.2 : 0), 0.8 - 0.5 * round - 0.2 * ring][c] + 0.05 * Math.sin(3 * i * j + c);
  })));
  const inputs = NAMES.map((name, c) => {
    const picture = play.picture(stage, `convolution-x-${c}`, `x, ${name}`, `input, ${name}`);
    const holder = play.element("div", { class: "stage" }), mark = play.element("div", { class: "window" });
    picture.figure.prepend(holder);
    holder.append(picture.canvas, mark);
    picture.draw(image[c], 0, 1);
    return { holder, mark };
  });
  const depthwise = NAMES.map((name, c) => play.picture(results, `convolution-d-${c}`, `depthwise, ${name}`, `result of the depthwise half, ${name}`));
  const output = play.picture(results, "convolution-y", "pointwise: one mixture", "result of the pointwise half");
  const kernel = play.choice(controls, { id: "convolution-kernel", label: "Kernel of each channel", options: Object.fromEntries(Object.keys(KERNELS).map((k) => [k, k])) }, restart);
  kernel.value = "left to right";
  const mix = NAMES.map((name, c) => play.slider(controls, {
    id: `convolution-mix-${c}`, label: `Pointwise weight of ${name}`, values: play.range(-4, 4).map((v) => v / 4), value: [0.5, 1, -0.5][c], show: (v) => play.fixed(v),
  }, paint));
  const channels = [1, 2, 3, 4, 8, 16, 32, 64, 128, 256, 512, 1024];
  const C = play.slider(controls, { id: "convolution-c", label: "For the count: channels in, C", values: channels, value: 64 }, cost);
  const K = play.slider(controls, { id: "convolution-k", label: "channels out, K", values: channels, value: 64 }, cost);
  const side = play.slider(controls, { id: "convolution-side", label: "kernel", values: [1, 3, 5, 7], value: 3, show: (n) => `${n} × ${n}` }, cost);
  let place = [5, 5], seen = new Set();
  play.button(row, "convolution-all", "Visit every place", () => { for (let k = 0; k < OUT * OUT; k++) seen.add(k); paint(); });
  play.button(row, "convolution-none", "Begin again", restart);

  function restart() {
    seen = new Set();
    move(...place);
  }

  function move(i, j) {
    place = [i, j].map((v) => Math.min(OUT - 1, Math.max(0, v)));
    seen.add(place[0] * OUT + place[1]);
    for (const { mark } of inputs) {
      const unit = 100 / SIZE;
      Object.assign(mark.style, { top: `${place[0] * unit}%`, left: `${place[1] * unit}%`, width: `${3 * unit}%`, height: `${3 * unit}%` });
    }
    paint();
  }

  const filtered = (c, i, j) => KERNELS[kernel.value].reduce((sum, w, k) => sum + w * image[c][i + Math.floor(k / 3)][j + (k % 3)], 0);

  function paint() {
    const low = kernel.value === "smooth" ? 0 : -1;
    const maps = NAMES.map((_, c) => play.range(0, OUT - 1).map((i) => play.range(0, OUT - 1).map((j) => (seen.has(i * OUT + j) ? filtered(c, i, j) : null))));
    maps.forEach((map, c) => depthwise[c].draw(map, low, 1));
    output.draw(maps[0].map((line, i) => line.map((v, j) => (v === null ? null : mix.reduce((sum, m, c) => sum + m.value * maps[c][i][j], 0)))), low, 1);
    const here = maps.map((map) => map[place[0]][place[1]]), y = mix.reduce((sum, m, c) => sum + m.value * here[c], 0);
    count.replaceChildren(
      `Row ${place[0] + 1}, column ${place[1] + 1}: depthwise gives ${here.map((v) => play.fixed(v)).join(", ")} (9 products a channel, 27), and pointwise `,
      play.element("output", { id: "convolution-y-here", "data-value": y }, play.fixed(y)), " (3 products). So far ",
      play.element("output", { id: "convolution-products" }, play.whole(30 * seen.size)), ` products, for ${seen.size} of ${OUT * OUT} places.`,
    );
  }

  function cost() {
    const taps = side.value ** 2, standard = taps * C.value * K.value, halves = [taps * C.value, C.value * K.value];
    const line = (words, products, id) => play.element(
      "tr", {}, play.element("td", {}, words), play.element("td", { id, "data-value": products }, play.whole(products)), play.element("td", {}, play.short(products * 256 ** 2)),
    );
    table.replaceChildren(
      play.element("tr", {}, ...["Products", "for a pixel", "for 256 × 256"].map((t) => play.element("th", {}, t))),
      line("standard convolution", standard, "convolution-standard"), line("depthwise half", halves[0], "convolution-depthwise"),
      line("pointwise half", halves[1], "convolution-pointwise"), line("both halves", halves[0] + halves[1], "convolution-separable"),
      play.element("tr", {}, play.element("td", {}, "standard to both halves"), play.element("td", { id: "convolution-ratio" }, `${(standard / (halves[0] + halves[1])).toPrecision(3)} : 1`), play.element("td")),
    );
  }

  for (const { holder } of inputs) {
    const follow = (event) => {
      const box = holder.getBoundingClientRect();
      move(...[(event.clientY - box.top) / box.height, (event.clientX - box.left) / box.width].map((v) => Math.floor(v * SIZE) - 1));
    };
    holder.addEventListener("pointerdown", (event) => { holder.setPointerCapture(event.pointerId); follow(event); });
    holder.addEventListener("pointermove", (event) => { if (event.buttons) follow(event); });
  }
  stage.addEventListener("keydown", (event) => {
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!step) return;
    event.preventDefault();
    move(place[0] + step[0], place[1] + step[1]);
  });
  play.convolution = { image, kernels: KERNELS };
  cost();
  restart();
})();
