// What the Web Worker does: the page sends {id, task, …}, and gets {id, result}, {id, error} or, before, {id, progress}.
// The page has several workers of this code: one reads images for the screen and writes files, others run the network.

const THRESHOLDS = Float32Array.from({ length: 101 }, (_, k) => k / 100); // which the page's slider can have

let segmenter = null, image = null;

const TASKS = {
  // about, and the texts of network.wasm and of the weights. Returns seconds a pixel.
  async load({ about, wasm, weights }) {
    segmenter = await Segmenter.load(about, decodeBase64(wasm), decodeBase64(weights));
    const side = segmenter.floor(SMALLEST_TILE), pixels = new Float32Array(side * side);
    segmenter.run(pixels, side, side); // the browser compiles it
    const begin = performance.now();
    segmenter.run(pixels, side, side);
    return { secondsPerPixel: (performance.now() - begin) / 1000 / side ** 2 };
  },

  async open({ blob, name }) {
    image = await openImage(blob, name);
    if (image.channels !== 1) {
      throw new Error(`${name} has ${image.channels} channels, and the network takes 1: give it one channel at a time.`);
    }
    const { kind, count, height, width, dtype, pixelSize } = image;
    return { kind, count, height, width, dtype, pixelSize };
  },

  // Section k in 8 bits for the screen, and what is to be said of the file.
  async picture({ k }) {
    const [pixels] = await image.section(k);
    const grey = toScreen(pixels, image.dtype), { colour, notes } = image;
    return { result: { grey, colour, notes }, transfer: [grey.buffer] };
  },

  // Bytes that the network needs for the whole image.
  memory({ scale }) {
    return segmenter.memoryFor(...segmenter.target(image.height, image.width, scale));
  },

  statistics({ scale }, progress) {
    return segmenter.statistics(image, scale, progress);
  },

  async predict({ k, options }, progress) {
    const [pixels] = await image.section(k);
    const { probabilities, tile } = segmenter.predict(pixels, image, options, progress);
    const counts = countPixels(probabilities, image.height * image.width);
    return { result: { probabilities, tile, counts }, transfer: [probabilities.buffer] };
  },

  // Masks or probabilities of sections as a file; `sections` are Blobs of probabilities (classes, H, W).
  async save({ sections, format, content, threshold, classes, height, width, pixelSize }) {
    const n = height * width, dtype = content === "mask" ? "uint8" : "float32";
    const pages = async function* () {
      for (const blob of sections) {
        const probabilities = new Float32Array(await blob.arrayBuffer());
        if (content === "mask") yield makeMask(probabilities, n, threshold);
        else for (let at = 0; at < probabilities.length; at += n) yield probabilities.subarray(at, at + n);
      }
    };
    if (format === "png") return writePng((await pages().next()).value, { width, height, dtype, pixelSize });
    const count = sections.length * (content === "mask" ? 1 : classes);
    return writeTiff(pages(), { width, height, dtype, pixelSize, count });
  },
};

self.onmessage = async ({ data: { id, task, ...given } }) => {
  try {
    const progress = (done, all) => self.postMessage({ id, progress: [done, all] });
    const answer = await TASKS[task](given, progress);
    const { result, transfer } = answer && answer.transfer ? answer : { result: answer, transfer: [] };
    self.postMessage({ id, result }, transfer);
  } catch (error) {
    self.postMessage({ id, error: sentenceOf(error) });
  }
};

// Errors of the class Error are sentences already; others come from the browser.
function sentenceOf(error) {
  if (error instanceof OutOfMemory || error.name === "Error") return error.message;
  if (error instanceof RangeError) {
    return `This image needs more memory than the browser gives (${error.message}). Cut it into parts.`;
  }
  if (error.name === "NotFoundError" || error.name === "NotReadableError") {
    return "The file cannot be read any more: it was moved, changed or removed. Choose it again.";
  }
  return `This page failed at something that it does not expect (${error.name}: ${error.message}).`;
}

// The mask of a section, as tinyseg predict writes it: 0 and 255 for one class, else the number of the class.
function makeMask(probabilities, n, threshold) {
  const mask = new Uint8Array(n), classes = probabilities.length / n;
  for (let i = 0; i < n; i++) {
    if (classes === 1) {
      mask[i] = probabilities[i] > Math.fround(threshold) ? 255 : 0;
      continue;
    }
    for (let k = 1; k < classes; k++) if (probabilities[k * n + i] > probabilities[mask[i] * n + i]) mask[i] = k;
  }
  return mask;
}

// Pixels of each class; for one class, those that are foreground with each of the THRESHOLDS.
function countPixels(probabilities, n) {
  if (probabilities.length > n) {
    const counts = new Array(probabilities.length / n).fill(0);
    for (const k of makeMask(probabilities, n)) counts[k]++;
    return counts;
  }
  const above = new Array(THRESHOLDS.length + 1).fill(0); // [j]: pixels that exceed the first j thresholds
  for (const p of probabilities) {
    let j = Math.min(Math.max(Math.ceil(p * 100), 0), THRESHOLDS.length);
    while (j > 0 && !(p > THRESHOLDS[j - 1])) j--;
    while (j < THRESHOLDS.length && p > THRESHOLDS[j]) j++;
    above[j]++;
  }
  for (let j = above.length - 2; j >= 0; j--) above[j] += above[j + 1];
  return above.slice(1);
}

// 8 bits as they are; other types from their darkest to their brightest thousandth.
function toScreen(pixels, dtype) {
  if (dtype === "uint8") return Uint8Array.from(pixels);
  const step = Math.max(1, Math.floor(pixels.length / 65536));
  const some = Float64Array.from({ length: Math.ceil(pixels.length / step) }, (_, i) => pixels[i * step]).sort();
  const low = some[Math.floor(some.length * 0.001)], high = some[Math.floor((some.length - 1) * 0.999)];
  const grey = new Uint8ClampedArray(pixels.length), factor = 255 / (high - low || 1);
  for (let i = 0; i < pixels.length; i++) grey[i] = (pixels[i] - low) * factor;
  return new Uint8Array(grey.buffer);
}

function decodeBase64(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}
