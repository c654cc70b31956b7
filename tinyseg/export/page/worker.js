// What the Web Worker does: the page sends {id, task, …} and gets {id, result}, {id, error} or, before, {id, progress}.
// The page has several workers of this code: one reads images for the screen and writes files, others run the network.

const THRESHOLDS = Float32Array.from({ length: 101 }, (_, k) => k / 100); // which the page's slider can have

let segmenter = null, image = null;

const TASKS = {
  // Whether Blobs can be sent here; see blobs.js.
  blobs({ standIn }) {
    return prepareBlobs(standIn);
  },

  // about, and the texts of network.wasm and of the weights. Returns seconds a pixel.
  async load({ about, wasm, weights }) {
    segmenter = await Segmenter.load(about, decodeBase64(wasm), decodeBase64(weights));
    const side = segmenter.floor(SMALLEST_TILE), pixels = new Float32Array(side * side * about.channels);
    segmenter.run(pixels, side, side); // the browser compiles it
    const begin = performance.now();
    segmenter.run(pixels, side, side);
    return { secondsPerPixel: (performance.now() - begin) / 1000 / side ** 2 };
  },

  // files: [{blob or bytes, name}], one, or one for each of the `names` of the network's channels. `brain` is true if the
  // network takes volumes, which are turned to the order of axes in which it was trained.
  async open({ files, channels, names, brain }) {
    const given = files.map(({ blob, bytes, name }) => ({ blob: blob || new Blob([bytes]), name }));
    const open = async ({ blob, name }) => {
      const opened = await openImage(blob, name);
      return brain && opened.header ? turnVolume(opened) : opened;
    };
    image = await openChannels(given, channels, names, open);
    const { kind, count, height, width, dtype, pixelSize } = image;
    return { kind, count, height, width, dtype, pixelSize };
  },

  // A channel of section k in 8 bits for the screen, and what is to be said of the file.
  async picture({ k, channel }) {
    const planes = await image.section(k);
    const grey = toScreen(planes[channel], image.dtype), { colour, notes } = image;
    return { result: { grey, colour, notes }, transfer: [grey.buffer] };
  },

  // Bytes that the network needs for the whole image.
  memory({ scale }) {
    return segmenter.memoryFor(...segmenter.preparation.target(image.height, image.width, scale));
  },

  // What must be known of the whole image before a section is predicted; null if nothing.
  statistics({ scale }, progress) {
    const { preparation } = segmenter;
    return preparation.needsStatistics ? preparation.statistics(image, scale, progress) : null;
  },

  async predict({ k, options }, progress) {
    const { probabilities, tile } = segmenter.predict(await image.section(k), image, options, progress);
    const counts = countPixels(probabilities, image.height * image.width);
    return { result: { probabilities, tile, counts }, transfer: [probabilities.buffer] };
  },

  // Masks or probabilities of sections as a file; `sections` are Blobs of probabilities (classes, H, W), or their bytes.
  async save({ sections, format, content, threshold, classes, height, width, pixelSize }) {
    sections = sections.map((each) => (each instanceof ArrayBuffer ? new Blob([each]) : each));
    if (format === "nifti") return saveVolume(sections, content, threshold);
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
  if (given.decoded) {
    takeBitmap(given);
    return;
  }
  try {
    const progress = (done, all) => self.postMessage({ id, progress: [done, all] });
    const answer = await TASKS[task](given, progress);
    const { result, transfer } = answer && answer.transfer ? answer : { result: answer, transfer: [] };
    if (result instanceof BlobInMemory) {
      self.postMessage({ id, result: { ofBlob: result.bytes, type: result.type } });
      return;
    }
    self.postMessage({ id, result }, transfer);
  } catch (error) {
    self.postMessage({ id, error: sentenceOf(error) });
  }
};

// Open an image, or several files that hold a channel of it each.
async function openChannels(files, channels, names, open) {
  if (files.length === 1) {
    const opened = await open(files[0]);
    if (opened.channels !== channels) {
      const many = (n) => `${n} ${n === 1 ? "channel" : "channels"}`;
      const mend = channels === 1 ? "save the one to use" : `give the files of ${names.join(", ")} together`;
      throw new Error(`${files[0].name} has ${many(opened.channels)}, and the network takes ${channels}: ${mend}.`);
    }
    return opened;
  }
  // The name of a channel is a word of the name of its file, as in case_t1ce.nii.gz.
  const words = files.map(({ name }) => name.toLowerCase().split(/[^a-z0-9]+/));
  const places = names.map((name) => words.findIndex((each) => each.includes(name.toLowerCase())));
  if (files.length !== channels || new Set(places).size !== channels || places.includes(-1)) {
    throw new Error(
      `The network takes ${channels} files, whose names say ${names.join(", ")}, such as case_${names[0]}.nii.gz; ` +
      `found ${files.map(({ name }) => name).join(", ")}.`,
    );
  }
  const parts = [];
  for (const place of places) parts.push(await open(files[place]));
  const [first] = parts, same = (key) => parts.every((part) => part[key] === first[key]);
  if (!["count", "height", "width"].every(same) || parts.some((part) => part.channels !== 1)) {
    const shapes = parts.map((p, k) => `${names[k]} ${p.height} × ${p.width} × ${p.count}`);
    throw new Error(`The files must be volumes of one size, found ${shapes.join(", ")}: register them first.`);
  }
  const section = async (k) => (await Promise.all(parts.map((part) => part.section(k)))).flat();
  return { ...first, channels, dtype: same("dtype") ? first.dtype : "float32", section };
}

// A volume of labels, or of the probabilities of all classes, in the grid of the one that is open.
async function saveVolume(sections, content, threshold) {
  const n = image.height * image.width, slices = [];
  for (const blob of sections) {
    const p = new Float32Array(await blob.arrayBuffer()), classes = p.length / n;
    if (content === "mask") slices.push(makeMask(p, n, threshold, 1));
    else slices.push(Array.from({ length: classes }, (_, k) => p.subarray(k * n, (k + 1) * n)));
  }
  return writeNifti(asStored(slices), image.header, { dtype: content === "mask" ? "uint8" : "float32" });
}

// Sections of the open volume in the order of its file; each is an array of pixels, or of one such array for each class.
function asStored(sections) {
  if (!image.restore) return sections;
  if (ArrayBuffer.isView(sections[0])) return image.restore(sections);
  const classes = sections[0].map((_, c) => image.restore(sections.map((section) => section[c])));
  return classes[0].map((_, k) => classes.map((each) => each[k]));
}

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

// The mask of a section, as tinyseg predict writes it: 0 and `white` for one class, else the number of the class.
function makeMask(probabilities, n, threshold, white = 255) {
  const mask = new Uint8Array(n), classes = probabilities.length / n;
  for (let i = 0; i < n; i++) {
    if (classes === 1) {
      mask[i] = probabilities[i] > Math.fround(threshold) ? white : 0;
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
