/* What the things to play with share: elements, sliders, choices, random numbers, pictures of numbers. No library. */
"use strict";
const play = {};

/** Make an element: play.element("p", { class: "quiet" }, "text", another). */
play.element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

/** Make an element of a drawing. */
play.svg = (tag, attributes = {}, ...children) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
};

/** Add a slider; its element has `value`, a number. `show` makes the text beside it, `values` are what it steps through. */
play.slider = (parent, { id, label, values, value, show = String }, changed) => {
  const input = play.element("input", { type: "range", id, min: 0, max: values.length - 1, step: 1 });
  const output = play.element("output", { for: id, id: `${id}-value` });
  input.value = values.indexOf(value);
  parent.append(play.element("label", {}, label, output, input));
  const slider = { input, get value() { return values[Number(input.value)]; } };
  const say = () => {
    output.textContent = show(slider.value);
    input.setAttribute("aria-valuetext", show(slider.value));
  };
  input.addEventListener("input", () => { say(); changed(); });
  say();
  return slider;
};

/** Add a choice between named options. */
play.choice = (parent, { id, label, options }, changed) => {
  const select = play.element("select", { id });
  for (const [value, words] of Object.entries(options)) select.append(play.element("option", { value }, words));
  select.addEventListener("change", changed);
  parent.append(play.element("label", {}, label, select));
  return select;
};

play.button = (parent, id, words, pressed) => {
  const button = play.element("button", { type: "button", id }, words);
  button.addEventListener("click", pressed);
  parent.append(button);
  return button;
};

/** Return whole numbers from `a` to `b`. */
play.range = (a, b, step = 1) => Array.from({ length: Math.floor((b - a) / step + 1.001) }, (_, k) => a + k * step);

/** Write a number for people: 31,031,685, 54.6 G, -0.25. */
play.whole = (n) => Math.round(n).toLocaleString("en-US");
play.short = (n) => {
  for (const [size, letter] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(n) >= size) return `${(n / size).toPrecision(3)} ${letter}`;
  }
  return Number(n.toPrecision(3)).toString();
};
play.fixed = (n, digits = 2) => (Math.abs(n) < 0.5 * 10 ** -digits ? 0 : n).toFixed(digits).replace("-", "−");

/** Return a function that draws standard normal numbers, the same ones for the same seed. */
play.normal = (seed) => {
  let state = seed >>> 0;
  const uniform = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (((t ^ (t >>> 14)) >>> 0) + 0.5) / 4294967296;
  };
  return () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
};

play.mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;
play.deviation = (values) => {
  const mean = play.mean(values);
  return Math.sqrt(play.mean(values.map((v) => (v - mean) ** 2)));
};

/** Make a canvas for rows of numbers, in a figure with a caption; `draw(rows, low, high)` shows them as greys. */
play.picture = (parent, id, caption, words) => {
  const canvas = play.element("canvas", { id, role: "img", "aria-label": words });
  const figure = play.element("figure", {}, canvas, play.element("figcaption", {}, caption));
  parent.append(figure);
  return {
    canvas, figure,
    draw(rows, low, high) {
      canvas.width = rows[0].length;
      canvas.height = rows.length;
      const context = canvas.getContext("2d"), image = context.createImageData(canvas.width, canvas.height);
      rows.flat().forEach((value, k) => {
        const grey = value === null ? 128 : 255 * Math.min(1, Math.max(0, (value - low) / (high - low)));
        image.data.set(value === null ? [128, 128, 128, 60] : [grey, grey, grey, 255], 4 * k);
      });
      context.putImageData(image, 0, 0);
    },
  };
};
