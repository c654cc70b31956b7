// Pictures of a section: the image, and what the network found in it.

const MOST_ON_SCREEN = 16 * 2 ** 20; // pixels of a canvas; phones refuse more
const COLOURS = [
  [0, 158, 178], [230, 126, 34], [142, 68, 173], [241, 196, 15], [41, 98, 195], [214, 69, 121], [86, 180, 76],
];

// Colour of a class, [red, green, blue], or null for the background of several classes.
function colourOf(k) {
  if (ABOUT.classes.length === 1) return COLOURS[0];
  return k === 0 ? null : COLOURS[(k - 1) % COLOURS.length];
}

// Volumes are shown upright: the first axis of a section runs to the right, the second one up.
function shownSize({ kind, height, width }) {
  return kind === "NIfTI" ? [width, height] : [height, width];
}

// Draw a section to a canvas. picture: Uint8Array, grey values; probabilities: Float32Array (classes, H, W), or null.
// An image that is too large is drawn smaller.
function paint(canvas, shape, picture, probabilities, { view, threshold, opacity, shownClass }) {
  const { height, width, kind } = shape, [rows, columns] = shownSize(shape);
  const step = Math.ceil(Math.sqrt((height * width) / MOST_ON_SCREEN));
  const h = Math.ceil(rows / step), w = Math.ceil(columns / step);
  const upright = (i, j) => j * step * width + width - 1 - i * step, asStored = (i, j) => i * step * width + j * step;
  const pixelAt = kind === "NIfTI" ? upright : asStored;
  if (canvas.width !== w || canvas.height !== h) [canvas.width, canvas.height] = [w, h];
  const image = new ImageData(w, h), pixels = image.data, tints = ABOUT.classes.map((_, k) => colourOf(k));
  const classes = probabilities && classesOnScreen(probabilities, height * width, h, w, pixelAt, threshold);
  if (ABOUT.classes.length === 1) tints.unshift(null); // then 0 is the background, 1 the class
  for (let i = 0, at = 0; i < h; i++) {
    for (let j = 0; j < w; j++, at++) {
      const from = pixelAt(i, j), to = 4 * at;
      let grey = picture[from], tint = null, share = opacity;
      if (probabilities && view === "probability") grey = 255 * probabilities[shownClass * height * width + from];
      else if (probabilities && view === "mask") {
        grey = tints.length === 2 && classes[at] ? 255 : 0;
        [tint, share] = [tints.length > 2 ? tints[classes[at]] : null, 1];
      } else if (probabilities && view === "overlay") tint = tints[classes[at]];
      else if (probabilities && view === "outline") [tint, share] = [tints[borderOf(classes, at, i, j, h, w)], 1];
      pixels[to] = tint ? grey + (tint[0] - grey) * share : grey;
      pixels[to + 1] = tint ? grey + (tint[1] - grey) * share : grey;
      pixels[to + 2] = tint ? grey + (tint[2] - grey) * share : grey;
      pixels[to + 3] = 255;
    }
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// The class of each pixel on the screen; for a network of one class, 1 is the foreground.
function classesOnScreen(probabilities, n, h, w, pixelAt, threshold) {
  const classes = new Uint8Array(h * w), count = probabilities.length / n, limit = Math.fround(threshold);
  for (let i = 0, at = 0; i < h; i++) {
    for (let j = 0; j < w; j++, at++) {
      const from = pixelAt(i, j);
      if (count === 1) classes[at] = probabilities[from] > limit ? 1 : 0;
      for (let k = 1; k < count; k++) {
        if (probabilities[k * n + from] > probabilities[classes[at] * n + from]) classes[at] = k;
      }
    }
  }
  return classes;
}

// The class of a pixel if another class is beside it, else 0.
function borderOf(classes, at, i, j, h, w) {
  const k = classes[at];
  const inside =
    (j === 0 || classes[at - 1] === k) && (j === w - 1 || classes[at + 1] === k) &&
    (i === 0 || classes[at - w] === k) && (i === h - 1 || classes[at + w] === k);
  return inside ? 0 : k;
}
