/* The U of a network, with what it costs: the formulas of tinyseg's models and of tinyseg.report.profile. */
"use strict";
(() => {
  const root = document.getElementById("play-network"), controls = play.element("div", { class: "controls" });
  const drawing = play.svg("svg", { viewBox: "0 0 640 300", role: "img", id: "network-drawing" });
  const table = play.element("table", { id: "network-costs" });
  drawing.style.minWidth = "34rem";
  root.append(controls, play.element("div", { class: "scroll", tabindex: 0, role: "group", "aria-label": "The network" }, drawing), table);
  const kind = play.choice(controls, {
    id: "network-kind", label: "Network",
    options: { sdunet: "SD-UNet", unet_dw_gn: "U-Net, depthwise separable, GroupNorm", unet_gn: "U-Net, GroupNorm", unet: "U-Net" },
  }, update);
  const width = play.slider(controls, { id: "network-width", label: "Width (channels of the first level)", values: [4, 8, 16, 32, 64, 128], value: 64 }, update);
  const levels = play.slider(controls, { id: "network-levels", label: "Levels", values: play.range(2, 7), value: 5 }, update);
  const size = play.slider(controls, { id: "network-size", label: "Image", values: [64, 128, 256, 512, 1024], value: 256, show: (n) => `${n} × ${n}` }, update);

  /** Return what a network of the chosen options has and does: parameters, multiply-adds, bytes, receptive field. */
  function costs({ kind, width, levels, size }) {
    const separable = kind === "sdunet" || kind === "unet_dw_gn", norm = kind !== "unet", stem = kind === "sdunet" ? 1 : 2;
    const at = Array.from({ length: levels }, () => ({ parameters: 0, work: 0 }));
    let kernels = 0;
    const conv = (level, c, k, taps, dense = false) => {  // a convolution of `taps` pixels from c to k channels, with its bias
      const weights = dense || !separable ? taps * c * k : taps * c + c * k;
      kernels += weights;
      at[level].parameters += weights + k;
      at[level].work += weights * (size / 2 ** level) ** 2;
    };
    const block = (level, c, layers, first = false) => {
      const k = width * 2 ** level;
      for (let i = 0; i < layers; i++) conv(level, i ? k : c, k, 9, first && i === 0);
      if (norm) at[level].parameters += 2 * k;
    };
    for (let level = 0; level < levels; level++) {
      block(level, level ? width * 2 ** (level - 1) : 1, level === 0 ? stem : 2, level === 0);
    }
    for (let level = levels - 2; level >= 0; level--) {
      const k = width * 2 ** level;
      conv(level, 2 * k, k, 4);
      block(level, 2 * k, 2);
    }
    at[0].parameters += width + 1;  // the head, 1 x 1
    at[0].work += width * size ** 2;
    kernels += width;

    const skips = [];
    let reach = 0;
    for (let level = 0; level < levels; level++) {
      if (level) reach += 2 ** (level - 1);
      reach += (level === 0 ? stem : 2) * 2 ** level;
      skips.push(reach);
    }
    for (let level = levels - 2; level >= 0; level--) reach = Math.max(reach + 2 ** level, skips[level]) + 2 * 2 ** level;
    const sum = (name) => at.reduce((total, level) => total + level[name], 0), first = width * size ** 2;
    return {
      parameters: sum("parameters"), multiply_adds: sum("work"), receptive_field: 2 * reach + 1,
      inference_bytes: 4 * (kernels + 10 * first), training_bytes: 4 * (4 * kernels + 16 * first), levels: at,
    };
  }

  function update() {
    const chosen = { kind: kind.value, width: width.value, levels: levels.value, size: size.value };
    const found = costs(chosen);
    const rows = [
      ["Parameters", "parameters", play.whole(found.parameters)],
      ["Multiply-adds for an image", "multiply_adds", play.short(found.multiply_adds)],
      ["Memory, at least: a result", "inference_bytes", `${play.short(found.inference_bytes)}B`],
      ["Memory, at least: a step of training, one image", "training_bytes", `${play.short(found.training_bytes)}B`],
      ["Receptive field", "receptive_field", `${found.receptive_field} × ${found.receptive_field} pixels`],
    ];
    table.replaceChildren(...rows.map(([words, name, text]) => play.element(
      "tr", {}, play.element("td", {}, words), play.element("td", { id: `network-${name}`, "data-value": found[name] }, text),
    )));
    draw(chosen, found);
  }

  function draw({ width, levels, size }, found) {
    const step = 300 / Math.max(levels, 4), work = Math.max(...found.levels.map((level) => level.work));
    const parts = [], middle = 320, label = (x, y, text, anchor = "start") => parts.push(play.svg("text", { x, y, "text-anchor": anchor }, text));
    found.levels.forEach(({ parameters, work: own }, level) => {
      const y = 20 + level * step, side = 10 + 24 * level, bar = Math.max(2, (120 * own) / work);
      const high = Math.min(24, step - 20), deepest = level === levels - 1;
      if (deepest) {
        parts.push(play.svg("rect", { class: "bar", x: middle - bar / 2, y, width: bar, height: high }));
      } else {
        parts.push(play.svg("rect", { class: "bar", x: side, y, width: bar / 2, height: high }));
        parts.push(play.svg("rect", { class: "bar", x: 640 - side - bar / 2, y, width: bar / 2, height: high }));
        parts.push(play.svg("line", { class: "skip", x1: side + bar / 2 + 4, x2: 636 - side - bar / 2, y1: y + high / 2, y2: y + high / 2 }));
        const next = level === levels - 2 ? middle - 6 : side + 32;  // where the arm goes on, one level below
        parts.push(play.svg("path", { class: "edge", d: `M${side + 8} ${y + high} L${next} ${y + step}` }));
        parts.push(play.svg("path", { class: "edge", d: `M${640 - next} ${y + step} L${632 - side} ${y + high}` }));
      }
      label(middle, deepest ? y + high + 16 : y - 5, `${size / 2 ** level}², ${width * 2 ** level} channels: ${play.short(own)} multiply-adds, ${play.short(parameters)} parameters`, "middle");
    });
    drawing.setAttribute("aria-label", `A U of ${levels} levels; the width of a bar is its share of the work.`);
    drawing.setAttribute("viewBox", `0 0 640 ${50 + (levels - 1) * step + 16}`);
    drawing.replaceChildren(...parts);
  }
  play.costs = costs;
  update();
})();
