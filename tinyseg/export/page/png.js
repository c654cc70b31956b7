// PNG: read in all its bit depths, colour types and orders of rows, and written in grey of 8 or 16 bits.
//
// A browser's canvas has 8 bits, so pixels of 16 bits are decoded here. Needs images.js.

const PNG_SAMPLES = { 0: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // values of a pixel by the type of colour; 3 is a palette
const PNG_PASSES = [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]];

// Open a PNG. `pixelSize` is {x, y, unit: "m"} if the file says it.
async function openPng(blob, image) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const png = readChunks(bytes);
  const { width, height, bits, colourType, interlaced } = png;
  const samples = PNG_SAMPLES[colourType];
  if (png.frames > 1) refuse(`is a picture of ${png.frames} frames: a picture is one section. Save a TIFF stack.`);
  refuseLarge(height, width, samples * Math.max(1, bits / 8), 8 * png.packed.length, DEFLATE_FACTOR);
  const passes = interlaced ? PNG_PASSES : [[0, 0, 1, 1]];
  const rowsOf = ([x, y, dx, dy]) => [Math.ceil((width - x) / dx), Math.ceil((height - y) / dy)];
  const stored = passes.map(rowsOf).map(([w, h]) => (w && h ? h * (1 + Math.ceil((w * samples * bits) / 8)) : 0));
  const size = stored.reduce((a, b) => a + b, 0);
  const unpacked = await inflate(png.packed, "deflate", size);
  if (unpacked.length < size) damaged(`its pixels have ${unpacked.length} bytes of ${size}`);
  const pixels = bits === 16 ? new Uint16Array(width * height * samples) : new Uint8Array(width * height * samples);
  let at = 0;
  for (const pass of passes) {
    const [w, h] = rowsOf(pass);
    const rowBytes = Math.ceil((w * samples * bits) / 8);
    if (!w || !h) continue;
    const rows = unfilter(
      unpacked.subarray(at, at + h * (1 + rowBytes)),
      h,
      rowBytes,
      Math.max(1, (samples * bits) / 8),
    );
    at += h * (1 + rowBytes);
    const values =
      bits === 16 ? numbersOf(rows, "uint16", false) : bits === 8 ? rows : unpackBits(rows, bits, w * samples, h);
    if (!interlaced) pixels.set(values);
    else placePass(pixels, values, w, h, width, samples, pass);
  }
  finishPng(png, pixels, image);
}

// Give `image` the pixels as they are shown: through the palette, stretched to 8 bits, and turned.
function finishPng(png, pixels, image) {
  const { width, height, bits, colourType, transparent, orientation } = png;
  let values = pixels;
  let samples = PNG_SAMPLES[colourType];
  let opacity = colourType >= 4;
  if (colourType === 3) {
    values = throughPalette(pixels, png.palette, transparent || new Uint8Array(0));
    samples = 4;
    opacity = true;
  } else if (bits === 2 || bits === 4) {
    const factor = 255 / (2 ** bits - 1);
    values = pixels.map((value) => value * factor);
  }
  if (transparent && colourType !== 3) refuseTransparent(pixels, samples, transparent, bits);
  const dtype = bits === 16 ? "uint16" : bits === 1 && colourType === 0 ? "bool" : "uint8";
  const { grey, colour } = greyOf(values, samples, opacity, dtype);
  const turned = orientation >= 5;
  const section = oriented(grey, height, width, orientation);
  const [x, y, unit] = png.density;
  if (unit === 1 && x && y) image.pixelSize = { x: 1 / (turned ? y : x), y: 1 / (turned ? x : y), unit: "m" };
  Object.assign(image, { height: turned ? width : height, width: turned ? height : width, dtype, colour });
  image.section = async () => [section.slice()];
}

// Return what the chunks of a PNG say; `packed` are its pixels, still packed.
function readChunks(bytes) {
  const view = new DataView(bytes.buffer);
  const parts = [];
  const png = { density: [], frames: 1, orientation: 1, palette: new Uint8Array(0), transparent: null };
  for (let at = 8; ;) {
    if (at + 8 > bytes.length) {
      if (parts.length) break; // without its end
      damaged("it ends before its pixels");
    }
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + length);
    if (body.length < length && kind !== "IDAT") {
      if (parts.length) break; // what is behind the pixels can be lost
      damaged("it ends before its pixels");
    }
    if (
      ["IHDR", "PLTE", "tRNS"].includes(kind) &&
      !(
        at + 12 + length <= bytes.length &&
        view.getUint32(at + 8 + length) === crc32(bytes.subarray(at + 4, at + 8 + length))
      )
    ) {
      damaged(`the checksum of its ${kind} is wrong`);
    }
    if (kind === "IHDR" && length >= 13) {
      const [bits, colourType, , , interlaced] = body.subarray(8, 13);
      Object.assign(png, {
        width: view.getUint32(at + 8),
        height: view.getUint32(at + 12),
        bits,
        colourType,
        interlaced,
      });
    } else if (kind === "PLTE") png.palette = body;
    else if (kind === "tRNS") png.transparent = body;
    else if (kind === "IDAT") parts.push(body);
    else if (kind === "acTL" && length >= 8) png.frames = view.getUint32(at + 8);
    else if (kind === "eXIf") png.orientation = orientationOf(body);
    else if (kind === "pHYs" && length >= 9) png.density = [view.getUint32(at + 8), view.getUint32(at + 12), body[8]];
    if (kind === "IEND") break;
    at += 12 + length;
  }
  const depths = { 0: [1, 2, 4, 8, 16], 2: [8, 16], 3: [1, 2, 4, 8], 4: [8, 16], 6: [8, 16] }[png.colourType];
  if (!depths || !depths.includes(png.bits) || png.interlaced > 1) damaged("its header says what a PNG cannot be");
  png.packed = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    png.packed.set(part, at);
    at += part.length;
  }
  return png;
}

// Undo the filters of rows, each of which begins with the number of its filter; `step` bytes are a pixel, at least 1.
function unfilter(stored, rows, rowBytes, step) {
  const out = new Uint8Array(rows * rowBytes);
  for (let row = 0; row < rows; row++) {
    const from = row * (rowBytes + 1) + 1;
    const to = row * rowBytes;
    const filter = stored[from - 1];
    if (filter > 4) damaged("its rows have a filter that there is not");
    for (let i = 0; i < rowBytes; i++) {
      const a = i >= step ? out[to + i - step] : 0;
      const b = row ? out[to + i - rowBytes] : 0;
      let guess = 0;
      if (filter === 1) guess = a;
      else if (filter === 2) guess = b;
      else if (filter === 3) guess = (a + b) >> 1;
      else if (filter === 4) {
        // Whichever of left, above and corner is next to left + above - corner
        const c = i >= step && row ? out[to + i - rowBytes - step] : 0;
        const da = Math.abs(b - c);
        const db = Math.abs(a - c);
        const dc = Math.abs(a + b - 2 * c);
        guess = da <= db && da <= dc ? a : db <= dc ? b : c;
      }
      out[to + i] = stored[from + i] + guess;
    }
  }
  return out;
}

// Put the pixels of one pass of an interlaced picture in their places.
function placePass(pixels, values, w, h, width, samples, [x, y, dx, dy]) {
  for (let row = 0, i = 0; row < h; row++) {
    for (let column = 0; column < w; column++) {
      const to = ((y + row * dy) * width + x + column * dx) * samples;
      for (let s = 0; s < samples; s++) pixels[to + s] = values[i++];
    }
  }
}

// Return red, green, blue and opacity for each of the pixels, which are numbers of colours.
function throughPalette(pixels, palette, opacities) {
  const found = Math.floor(palette.length / 3);
  const out = new Uint8Array(4 * pixels.length);
  for (let i = 0; i < pixels.length; i++) {
    const k = pixels[i];
    if (k >= found) refuse(`refers to colour ${k}, counted from 0, of a palette of ${found} colours: export it again.`);
    for (let c = 0; c < 3; c++) out[4 * i + c] = palette[3 * k + c];
    out[4 * i + 3] = k < opacities.length ? opacities[k] : 255;
  }
  return out;
}

// Raise an error if some pixels have the one value, or colour, that stands for transparency, and others do not.
function refuseTransparent(pixels, samples, transparent, bits) {
  const value = Array.from({ length: samples }, (_, s) => (transparent[2 * s] << 8) | transparent[2 * s + 1]);
  if (bits === 1) value[0] = Math.min(value[0], 1);
  let hidden = 0;
  for (let i = 0; i < pixels.length; i += samples) hidden += value.every((v, s) => pixels[i + s] === v);
  if (hidden && hidden < pixels.length / samples) {
    refuse(
      "has an opacity (alpha, transparency) that is not the same everywhere: expected grey or colour. " +
        "Save it without, on the background that is meant.",
    );
  }
}

// ---- writing

// Write grey pixels, row by row, as a PNG: a Blob. `dtype` is "uint8" or "uint16"; `pixelSize` as openImage gives it.
async function writePng(pixels, { width, height, dtype, pixelSize = null }) {
  const size = { uint8: 1, uint16: 2 }[dtype];
  if (!size) throw new Error(`A PNG is written as uint8 or uint16, not as ${dtype}: convert the pixels.`);
  if (pixels.length !== width * height) {
    throw new Error(`A PNG of ${height} × ${width} pixels was given ${pixels.length} values: give one for each.`);
  }
  const rows = new Uint8Array(height * (1 + size * width));
  for (let y = 0, i = 0, o = 0; y < height; y++) {
    o++; // filter 0: none
    for (let x = 0; x < width; x++) {
      if (size === 2) rows[o++] = pixels[i] >> 8;
      rows[o++] = pixels[i++];
    }
  }
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8 * size);
  const parts = [
    new Uint8Array([0x89, 80, 78, 71, 13, 10, 26, 10]),
    ...pngChunk("IHDR", new Uint8Array(header.buffer)),
  ];
  const metres = { nm: 1e-9, µm: 1e-6, mm: 1e-3, cm: 1e-2, m: 1, inch: 0.0254 }[pixelSize && pixelSize.unit];
  if (metres) {
    const density = [pixelSize.x, pixelSize.y].map((n) => Math.round(1 / (n * metres)));
    if (density.every((n) => n > 0 && n < 2 ** 32)) {
      const body = new DataView(new ArrayBuffer(9));
      density.forEach((n, i) => body.setUint32(4 * i, n));
      body.setUint8(8, 1);
      parts.push(...pngChunk("pHYs", new Uint8Array(body.buffer)));
    }
  }
  parts.push(...pngChunk("IDAT", (await deflate(rows)) || storedDeflate(rows)), ...pngChunk("IEND", new Uint8Array(0)));
  return new Blob(parts, { type: "image/png" });
}

function pngChunk(kind, body) {
  const name = Uint8Array.from(kind, (c) => c.charCodeAt(0));
  const numbers = new DataView(new ArrayBuffer(8));
  numbers.setUint32(0, body.length);
  numbers.setUint32(4, crc32(name, body));
  return [new Uint8Array(numbers.buffer, 0, 4), name, body, new Uint8Array(numbers.buffer, 4, 4)];
}

// Return bytes in zlib's format without packing them, where there is no packer.
function storedDeflate(bytes) {
  const blocks = Math.max(1, Math.ceil(bytes.length / 65535));
  const out = new Uint8Array(6 + 5 * blocks + bytes.length);
  out.set([0x78, 1]);
  let o = 2;
  for (let k = 0; k < blocks; k++) {
    const part = bytes.subarray(65535 * k, 65535 * (k + 1));
    const n = part.length;
    out.set([k === blocks - 1 ? 1 : 0, n & 255, n >> 8, ~n & 255, (~n >> 8) & 255], o);
    out.set(part, o + 5);
    o += 5 + n;
  }
  new DataView(out.buffer).setUint32(o, adler32(bytes));
  return out;
}
