// From an image as it is stored to probabilities at its own pixels, as tinyseg/prediction/predictor.py and tiles.py do
// it: prepare the image as in training, run the network, put what it gives back to the image's pixels.
//
// Runs in a Web Worker and in Node.js. The mathematics is in network.wasm (tinyseg/export/c): its functions take
// addresses in one memory, which begins with the weights; what comes behind them is laid out anew for each step.

const SMALLEST_TILE = 64;

class OutOfMemory extends Error {}

class Segmenter {
  // about: what the page knows of the network; wasm, packed: Uint8Array, packed the gzip of what `pack_parts` gives
  static async load(about, wasm, packed) {
    const parts = new Uint8Array(await unzip(packed));
    const { instance } = await WebAssembly.instantiate(wasm, {});
    const segmenter = new Segmenter(about, instance.exports);
    segmenter.takeWeights(parts, about.parts);
    return segmenter;
  }

  constructor(about, wasm) {
    this.about = about;
    this.wasm = wasm;
    this.free = wasm.heap() >>> 0; // addresses beyond 2 GiB come as negative numbers
    this.preparation = about.brain ? new BrainPreparation(this) : new SectionPreparation(this);
  }

  // Write weights.bin to the memory: integers are multiplied by the scale of their column.
  takeWeights(parts, table) {
    const count = table.reduce((sum, [, n]) => sum + n, 0);
    const [address] = this.layOut(4 * count);
    const weights = this.floats(address, count);
    let at = 0, done = 0;
    for (const [kind, n, columns] of table) {
      if (kind === "float") {
        weights.set(new Float32Array(parts.slice(at, at + 4 * n).buffer), done);
        at += 4 * n;
      } else {
        const scales = new Float32Array(parts.slice(at, at + 4 * columns).buffer);
        const type = { int8: Int8Array, int16: Int16Array }[kind], begin = at + 4 * columns;
        at = begin + n * type.BYTES_PER_ELEMENT;
        const integers = new type(parts.slice(begin, at).buffer);
        for (let i = 0; i < n; i++) weights[done + i] = integers[i] * scales[i % columns];
      }
      done += n;
    }
    if (at !== parts.length || this.wasm.network_open(address, 4 * count)) {
      throw new Error("The weights in this page are damaged: get the file anew.");
    }
    this.free = address + Math.ceil(count / 16) * 64;
  }

  // Return addresses for arrays of these numbers of bytes, one behind the other; the memory grows if it must.
  layOut(...sizes) {
    let end = this.free;
    const addresses = sizes.map((bytes) => {
      const address = end;
      end += Math.ceil(bytes / 64) * 64;
      return address;
    });
    const missing = end - this.wasm.memory.buffer.byteLength;
    try {
      if (missing > 0) this.wasm.memory.grow(Math.ceil(missing / 65536));
    } catch {
      throw new OutOfMemory(
        "This image needs more memory than the browser gives. Close other tabs, or cut the image into parts.",
      );
    }
    return addresses;
  }

  floats(address, count) { return new Float32Array(this.wasm.memory.buffer, address, count); }
  doubles(address, count) { return new Float64Array(this.wasm.memory.buffer, address, count); }

  // Read a plane at the pixels of another size: Float64Array. dtype is the type whose rounding is followed.
  resample(pixels, [H, W], [h, w], dtype) {
    if (H === h && W === w) return pixels;
    const [x, y, memory] = this.layOut(8 * H * W, 8 * h * w, 16 * H * W);
    this.doubles(x, H * W).set(pixels);
    this.wasm.resample(x, H, W, y, h, w, dtype.startsWith("float") ? 0 : 1, dtype === "float32" ? 1 : 0, memory);
    return this.doubles(y, h * w).slice();
  }

  // Interpolate a plane (h, w) of values back to (H, W): Float32Array.
  restore(plane, [h, w], [H, W]) {
    if (H === h && W === w) return plane;
    const [from, to] = this.layOut(4 * h * w, 4 * H * W);
    this.floats(from, h * w).set(plane);
    this.wasm.restore(from, h, w, to, H, W);
    return this.floats(to, H * W).slice();
  }

  // Bytes that the network needs for an image of this size, working memory and all.
  memoryFor(h, w) {
    const n = this.padded(h) * this.padded(w);
    const { channels, classes } = this.about;
    return this.wasm.network_memory(this.padded(h), this.padded(w)) + 4 * n * (channels + classes.length);
  }

  padded(n) { return Math.ceil(n / this.about.multiple) * this.about.multiple; }

  // Return {probabilities: Float32Array (classes, H, W), tile}; tile is 0 if the whole image went through at once.
  // planes: a Float64Array for each channel; memory: bytes; progress is called with the number of tiles that are done
  // and that of all.
  predict(planes, image, { scale, statistics, memory }, progress = () => {}) {
    planes.forEach(checkFinite);
    const x = this.preparation.prepare(planes, image, scale, statistics);
    let tile = this.memoryFor(x.height, x.width) <= memory ? 0 : this.tileWithin(memory);
    for (;;) {
      try {
        const logits = this.logits(x, tile, progress);
        return { probabilities: this.probabilities(logits, x, image), tile };
      } catch (error) {
        const largest = tile || this.padded(Math.max(x.height, x.width));
        if (!(error instanceof OutOfMemory) || largest <= Math.max(SMALLEST_TILE, this.about.multiple)) throw error;
        tile = Math.max(this.floor(largest / 2), this.floor(SMALLEST_TILE)); // the browser gave less than was hoped
      }
    }
  }

  floor(n) { return Math.max(Math.floor(n / this.about.multiple), 1) * this.about.multiple; }

  // Side of the largest square tile that needs at most this many bytes.
  tileWithin(memory) {
    const { multiple } = this.about;
    let tile = this.floor(SMALLEST_TILE);
    while (this.memoryFor(tile + multiple, tile + multiple) <= memory) tile += multiple;
    return tile;
  }

  // Logits (h, w, classes) of a prepared image, as predict_logits: padded by mirroring, computed at once or in tiles.
  logits({ pixels, height, width }, tile, progress) {
    const classes = this.about.classes.length, { channels } = this.about;
    const H = this.padded(height), W = this.padded(width);
    const rows = mirror(height, H, width), columns = mirror(width, W, height);
    const image = new Float32Array(H * W * channels);
    for (let i = 0, to = 0; i < H; i++) {
      for (let j = 0; j < W; j++) {
        const from = (rows[i] * width + columns[j]) * channels;
        for (let c = 0; c < channels; c++) image[to++] = pixels[from + c];
      }
    }
    const y = tile && tile < Math.max(H, W) ? this.inTiles(image, H, W, tile, progress) : this.run(image, H, W);
    progress(1, 1);
    const cropped = new Float32Array(height * width * classes);
    for (let i = 0; i < height; i++) {
      cropped.set(y.subarray(i * W * classes, (i * W + width) * classes), i * width * classes);
    }
    return cropped;
  }

  run(image, H, W) {
    const n = H * W, classes = this.about.classes.length, { channels } = this.about;
    const [x, y, memory] = this.layOut(4 * n * channels, 4 * n * classes, this.wasm.network_memory(H, W));
    this.floats(x, n * channels).set(image);
    this.wasm.network_run(x, y, H, W, memory);
    return this.floats(y, n * classes).slice();
  }

  inTiles(image, H, W, tile, progress) {
    const classes = this.about.classes.length, { multiple, radius, channels } = this.about;
    const margin = Math.min(radius, Math.floor(tile / 4));
    const rows = spans(H, tile, margin, multiple), columns = spans(W, tile, margin, multiple);
    const total = new Float32Array(H * W * classes), weight = new Float32Array(H * W);
    let done = 0;
    for (const r of rows) {
      for (const c of columns) {
        const h = r.weights.length, w = c.weights.length, part = new Float32Array(h * w * channels);
        for (let i = 0; i < h; i++) {
          const from = ((r.start + i) * W + c.start) * channels;
          part.set(image.subarray(from, from + w * channels), i * w * channels);
        }
        const y = this.run(part, h, w);
        for (let i = 0; i < h; i++) {
          for (let j = 0; j < w; j++) {
            const g = Math.fround(r.weights[i] * c.weights[j]), to = (r.start + i) * W + c.start + j;
            weight[to] += g;
            for (let k = 0; k < classes; k++) total[to * classes + k] += Math.fround(g * y[(i * w + j) * classes + k]);
          }
        }
        progress(++done, rows.length * columns.length);
      }
    }
    for (let i = 0; i < total.length; i++) total[i] /= weight[Math.floor(i / classes)];
    return total;
  }

  // Probabilities (classes, H, W) at the pixels of the stored image.
  probabilities(logits, { height, width }, image) {
    for (const value of logits) {
      if (!Number.isFinite(value)) {
        throw new Error(
          "The network's output is not finite: the image holds values far outside of those of the training.",
        );
      }
    }
    const classes = this.about.classes.length, n = height * width, N = image.height * image.width;
    const [from, to] = this.layOut(4 * n * classes, 4 * n * classes);
    this.floats(from, n * classes).set(logits);
    this.wasm.probabilities(from, n, classes, to);
    const planes = this.floats(to, n * classes).slice(), probabilities = new Float32Array(N * classes);
    for (let k = 0; k < classes; k++) {
      const plane = planes.subarray(n * k, n * (k + 1));
      probabilities.set(this.preparation.restore(plane, [height, width], [image.height, image.width], k), N * k);
    }
    return probabilities;
  }
}

// Cut an axis of n pixels into tiles: where each starts, and its weights along the axis. As _spans in tiles.py.
function spans(n, tile, margin, multiple) {
  tile = Math.min(tile, n);
  const step = Math.max(Math.floor((tile - 2 * margin - Math.floor(tile / 8)) / multiple), 1) * multiple;
  margin = Math.min(margin, Math.floor((tile - step) / 2));
  const starts = [];
  for (let start = 0; start < n - tile; start += step) starts.push(start);
  starts.push(n - tile);
  return starts.map((start) => {
    const weights = new Float64Array(tile);
    for (let i = start > 0 ? margin : 0; i < (start < n - tile ? tile - margin : tile); i++) {
      weights[i] = Math.exp(-0.5 * ((i - (tile - 1) / 2) / (tile / 4)) ** 2);
    }
    return { start, weights };
  });
}

// Which pixel of n stands at each place of an axis that is padded to `size` by mirroring about the border pixels. If
// this axis or the other one has a single pixel, the last one is repeated instead: as numpy.pad in predict_logits.
function mirror(n, size, other) {
  const period = 2 * (n - 1);
  return Int32Array.from({ length: size }, (_, i) => {
    if (Math.min(n, other) === 1) return Math.min(i, n - 1);
    return i % period < n ? i % period : period - (i % period);
  });
}

// Undo gzip: Uint8Array to ArrayBuffer.
function unzip(bytes) {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("This browser is too old for the page: open it with a browser of the year 2023 or later.");
  }
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
