// Preparing images as they were prepared in training, and putting what the network gives back into place: grey sections
// (as in tinyseg/prediction/predictor.py and tinyseg/data/isbi.py) and slices of brains (tinyseg/data/brain.py).
//
// Both kinds have target(height, width, scale), the size of the network's image; statistics(image, scale, progress), of
// a whole image; prepare(planes, image, scale, statistics), which gives {pixels: Float32Array (h, w, channels), height,
// width}; and restore(plane, [h, w], [H, W], k) for the probabilities of class k.

// Of the types of integers. Images of floats come as float32, those of 1 bit as bool, 0 and 1.
const LIMITS = {
  uint8: [0, 2 ** 8 - 1], uint16: [0, 2 ** 16 - 1], uint32: [0, 2 ** 32 - 1], uint64: [0, 2 ** 64 - 1],
  int8: [-(2 ** 7), 2 ** 7 - 1], int16: [-(2 ** 15), 2 ** 15 - 1], int32: [-(2 ** 31), 2 ** 31 - 1],
  int64: [-(2 ** 63), 2 ** 63 - 1],
};
const LARGEST_FLOAT = 3.4028234663852886e38; // of 32 bits
const MOST_FOR_NETWORK = 2 ** 28; // pixels of the network's image

class SectionPreparation {
  constructor(segmenter) {
    this.segmenter = segmenter;
    this.how = segmenter.about.standardize;
  }

  get needsStatistics() { return this.how === "stack"; }

  target(height, width, scale) {
    const size = [height, width].map((n, axis) => Math.max(1, roundToEven(n * scale[axis])));
    if (size[0] * size[1] > MOST_FOR_NETWORK) {
      throw new Error(
        `The image would have ${size[0]} × ${size[1]} pixels for the network, more than can be computed here. ` +
        "Choose a smaller scale, or cut the image into parts.",
      );
    }
    return size;
  }

  // [mean, deviation] over all sections, joined section by section after Chan et al. 1983.
  async statistics(image, scale, progress) {
    const { wasm } = this.segmenter;
    let count = 0, mean = 0, squares = 0;
    for (let k = 0; k < image.count; k++) {
      const [pixels] = await image.section(k);
      checkFinite(pixels);
      const x = this.resample(pixels, image, scale);
      const [from, to] = this.segmenter.layOut(8 * x.length, 16);
      this.segmenter.doubles(from, x.length).set(x);
      wasm.moments(from, x.length, to);
      const [own, ownSquares] = this.segmenter.doubles(to, 2);
      const gap = own - mean, n = count + x.length;
      squares += ownSquares + (gap ** 2 * count * x.length) / n;
      mean += (gap * x.length) / n;
      count = n;
      progress(k + 1, image.count);
    }
    return [mean, Math.sqrt(squares / Math.max(count, 1))];
  }

  resample(pixels, image, scale) {
    const size = [image.height, image.width];
    return this.segmenter.resample(pixels, size, this.target(...size, scale), image.dtype);
  }

  prepare([pixels], image, scale, statistics) {
    const [height, width] = this.target(image.height, image.width, scale);
    return { pixels: this.standardize(this.resample(pixels, image, scale), image.dtype, statistics), height, width };
  }

  standardize(x, dtype, statistics) {
    if (this.how === "section") {
      const [from, to] = this.segmenter.layOut(8 * x.length, 4 * x.length);
      this.segmenter.doubles(from, x.length).set(x);
      this.segmenter.wasm.standardize(from, to, x.length);
      return this.segmenter.floats(to, x.length).slice();
    }
    if (this.how === "stack") {
      const [mean, deviation] = statistics;
      return Float32Array.from(x, (value) => (value - mean) / (deviation || 1));
    }
    const [least, most] = LIMITS[dtype] || [0, 1];
    if (!(dtype in LIMITS) && !x.every((value) => value >= 0 && value <= 1)) {
      throw new Error(
        "The network takes floats from 0 to 1, and this image has others: divide it by the largest value that it " +
        "could have.",
      );
    }
    return Float32Array.from(x, (value) => (value - least) / (most - least));
  }

  restore(plane, from, to) { return this.segmenter.restore(plane, from, to); }
}

// The brain is where any channel is not 0. There each channel gets mean 0 and variance 1; elsewhere everything is 0.
class BrainPreparation {
  constructor(segmenter) {
    this.segmenter = segmenter;
    Object.assign(this, segmenter.about.brain); // size, how, standardize
  }

  get needsStatistics() { return this.standardize === "volume"; }

  target(height, width) {
    if (this.size === 0) return [height, width];
    return this.how === "crop" ? [Math.min(height, this.size), Math.min(width, this.size)] : [this.size, this.size];
  }

  // [means, deviations] of the channels over the brain.
  async statistics(image, scale, progress) {
    const sums = this.begin();
    for (let k = 0; k < image.count; k++) {
      const planes = await image.section(k);
      planes.forEach(checkFinite);
      this.add(sums, planes);
      progress(k + 1, image.count);
    }
    return this.finish(sums);
  }

  begin() {
    const { channels } = this.segmenter.about;
    return { count: 0, total: new Float64Array(channels), squares: new Float64Array(channels) };
  }

  add(sums, planes) {
    for (let i = 0; i < planes[0].length; i++) {
      if (!planes.some((plane) => plane[i] !== 0)) continue;
      sums.count++;
      planes.forEach((plane, c) => {
        sums.total[c] += plane[i];
        sums.squares[c] += plane[i] ** 2;
      });
    }
  }

  finish({ count, total, squares }) {
    const mean = total.map((sum) => sum / Math.max(count, 1));
    return [mean, squares.map((sum, c) => Math.sqrt(Math.max(sum / Math.max(count, 1) - mean[c] ** 2, 0)))];
  }

  prepare(planes, image, scale, statistics) {
    if (!this.needsStatistics) {
      const sums = this.begin();
      this.add(sums, planes);
      statistics = this.finish(sums);
    }
    const [means, deviations] = statistics, { channels } = this.segmenter.about;
    const size = [image.height, image.width], [height, width] = this.target(...size);
    const pixels = new Float32Array(height * width * channels);
    const wide = /32|64/.test(image.dtype) && image.dtype !== "float32"; // NumPy computes these with 64 bits
    const round = wide ? (value) => value : Math.fround;
    planes.forEach((plane, c) => {
      const mean = Math.fround(means[c]), deviation = Math.fround(deviations[c]) > 0 ? Math.fround(deviations[c]) : 1;
      const x = plane.map((value, i) => (planes.some((p) => p[i] !== 0) ? round(round(value - mean) / deviation) : 0));
      const fitted = this.fit(x, size, [height, width], wide);
      for (let i = 0; i < fitted.length; i++) pixels[i * channels + c] = fitted[i];
    });
    return { pixels, height, width };
  }

  fit(plane, [H, W], [h, w], wide) {
    const resized = this.how === "resize" && this.size > 0;
    if (resized) return this.segmenter.resample(plane, [H, W], [h, w], wide ? "float64" : "float32");
    const out = new Float64Array(h * w), top = Math.floor((H - h) / 2), left = Math.floor((W - w) / 2);
    for (let i = 0; i < h; i++) out.set(plane.subarray((top + i) * W + left, (top + i) * W + left + w), i * w);
    return out;
  }

  // What was cut off is background: class 0 of several has probability 1 there, the only class has probability 0.
  restore(plane, [h, w], [H, W], k) {
    if (this.how === "resize" && this.size) return this.segmenter.restore(plane, [h, w], [H, W]);
    const background = k === 0 && this.segmenter.about.classes.length > 1 ? 1 : 0;
    const top = Math.floor((H - h) / 2), left = Math.floor((W - w) / 2);
    const whole = new Float32Array(H * W).fill(background);
    for (let i = 0; i < h; i++) whole.set(plane.subarray(i * w, (i + 1) * w), (top + i) * W + left);
    return whole;
  }
}

// Round as Python does: halves go to the even neighbour.
function roundToEven(x) {
  return x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x);
}

function checkFinite(pixels) {
  for (const value of pixels) {
    if (!(Math.abs(value) <= LARGEST_FLOAT)) {
      throw new Error(
        `The image holds a value that is ${Number.isNaN(value) ? "no number (NaN)" : "too large"}: replace it first.`,
      );
    }
  }
}
