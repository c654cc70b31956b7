// The pixels of a TIFF: strips and tiles, unpacked and put together, and the section as it is shown. Needs tiff.js.

// Return the numbers of a page, all channels of a pixel together; or of one plane, or of a section behind the first.
async function pagePixels(file, page, plane, skip) {
  const { width, height, bits, compression, tags, tiled } = page;
  const separate = page.planar === 2 && page.samples > 1;
  const values = (name, otherwise = null) => tagValues(file, tags, name, otherwise);
  const offsets = await values(tiled ? "tileOffsets" : "stripOffsets");
  let sizes = await values(tiled ? "tileBytes" : "stripBytes");
  if (!offsets) damaged("a page does not say where its pixels are");
  const across = tiled ? (await values("tileWidth"))[0] : width;
  const down = (await values(tiled ? "tileHeight" : "rows", [height]))[0];
  const chunk = { width: across, height: tiled ? down : Math.min(down, height), samples: separate ? 1 : page.samples };
  if (!(chunk.width > 0 && chunk.height > 0)) damaged("its strips or tiles have no size");
  const columns = Math.ceil(width / chunk.width);
  const rows = Math.ceil(height / chunk.height);
  const each = columns * rows;
  const wanted = each * (separate ? page.samples : 1);
  if (offsets.length < wanted) damaged(`a page has ${offsets.length} of ${wanted} strips or tiles`);
  const bytesOf = (h) => h * Math.ceil((chunk.width * chunk.samples * bits) / 8);
  const heightOf = (i) =>
    tiled ? chunk.height : Math.min(chunk.height, height - Math.floor((i % each) / columns) * chunk.height);
  // Without packing the sizes are known, and what the file says of them may be rounded, or missing.
  if (compression === 1) sizes = offsets.map((at, i) => (at ? bytesOf(heightOf(i)) : 0));
  if (!sizes || sizes.length < wanted) damaged("a page does not say how many bytes its strips have");
  const packed = sizes.slice(0, wanted).reduce((a, b) => a + b, 0);
  const raw = skip || compression === 1 ? file.size : packed;
  refuseLarge(
    rows * chunk.height,
    columns * chunk.width,
    page.samples * Math.max(1, bits / 8),
    8 * raw,
    TIFF_FACTORS[compression],
  );
  if (skip) {
    const size = bytesOf(height);
    const whole = bits % 8 === 0 && !separate && !tiled && compression === 1;
    let end = offsets[0];
    for (let i = 0; i < each; i++) {
      if (!whole || offsets[i] !== end) damaged("its sections are not one block of pixels");
      end += bytesOf(heightOf(i));
    }
    const bytes = await file.read(offsets[0] + skip * size, size);
    return numbersOfChunk(bytes, page, { ...chunk, height }, file.little);
  }
  const taken = plane === null ? page.samples : 1;
  const out = new ARRAYS[page.stored](width * height * taken);
  const tables = tags.get(TIFF_TAGS.jpegTables);
  const shared = tables ? await bytesOfTag(file, tables) : new Uint8Array(0);
  const from = plane === null ? 0 : plane * each;
  const to = plane === null ? wanted : from + each;
  const fetch = await fetcher(file, offsets, sizes, from, to);
  for (let i = from; i < to; i++) {
    const h = heightOf(i);
    const size = bytesOf(h);
    const here = { ...chunk, height: h };
    if (!sizes[i] && !offsets[i]) continue; // a part that is not stored is black
    const bytes = await fetch(offsets[i], sizes[i]);
    const found = compression === 7 ? await jpegChunk(bytes, shared, page, here)
      : numbersOfChunk(await unpackChunk(bytes, page, size), page, here, file.little);
    const x = (i % columns) * chunk.width;
    const y = Math.floor((i % each) / columns) * chunk.height;
    placeChunk(out, found, page, here, x, y, taken, taken > chunk.samples ? Math.floor(i / each) : 0);
  }
  return out;
}

// Return a function that reads strips or tiles; those that lie close together are read in one go.
async function fetcher(file, offsets, sizes, from, to) {
  let first = Infinity;
  let last = 0;
  let sum = 0;
  for (let i = from; i < to; i++) {
    if (!sizes[i]) continue;
    first = Math.min(first, offsets[i]);
    last = Math.max(last, offsets[i] + sizes[i]);
    sum += sizes[i];
  }
  last = Math.min(last, file.size); // byte counts may be rounded up
  if (to - from < 2 || !(last - first <= 1.5 * sum + 65536)) return file.read;
  const bytes = await file.read(first, last - first);
  return (at, length) =>
    at >= first && at + length <= last ? bytes.subarray(at - first, at - first + length) : file.read(at, length);
}

// Unpack a strip or tile to `size` bytes.
async function unpackChunk(bytes, page, size) {
  if (page.fillOrder === 2) {
    bytes = bytes.map((b) => ((((b * 0x0802) & 0x22110) | ((b * 0x8020) & 0x88440)) * 0x10101) >> 16);
  }
  const { compression } = page;
  const out = compression === 5 ? unpackLzw(bytes, size)
    : compression === 32773 ? unpackPackBits(bytes, size)
    : compression === 1 ? bytes : await inflate(bytes, "deflate", size);
  if (out.length < size) damaged(`a strip or tile has ${out.length} bytes of ${size}`);
  return out;
}

// Return the numbers in the bytes of a strip or tile, after undoing its predictor.
function numbersOfChunk(bytes, page, { width, height, samples }, little) {
  const { bits, stored, predictor } = page;
  const inRow = width * samples;
  if (predictor === 3) {
    if (!stored.startsWith("float")) damaged("it has the predictor of floats and other values");
    return numbersOf(undoFloatPredictor(bytes, inRow, height, bits / 8, samples), stored, true);
  }
  if (bits % 8) {
    if (predictor !== 1) refuse("has a predictor and values that are no whole bytes: save it without.");
    return unpackBits(bytes, bits, inRow, height);
  }
  const values = numbersOf(bytes.subarray(0, (inRow * height * bits) / 8), stored, little);
  if (predictor === 1) return values;
  if (predictor !== 2) refuse(`has a predictor with the number ${predictor}, which is not read: save it without.`);
  // Each value is stored as the difference to that of the pixel on its left, in whole numbers whatever it stands for.
  const whole = { 1: Uint8Array, 2: Uint16Array, 4: Uint32Array, 8: BigUint64Array }[bits / 8];
  const sums = new whole(values.buffer, 0, values.length);
  for (let row = 0; row < height; row++) {
    for (let i = row * inRow + samples; i < (row + 1) * inRow; i++) sums[i] += sums[i - samples];
  }
  return values;
}

// Undo the predictor of floats: a row holds the highest bytes of all values, then the next, as differences.
function undoFloatPredictor(bytes, inRow, rows, size, samples) {
  const out = new Uint8Array(inRow * rows * size);
  const length = inRow * size;
  for (let row = 0; row < rows; row++) {
    const line = bytes.slice(row * length, (row + 1) * length);
    for (let i = samples; i < length; i++) line[i] += line[i - samples];
    for (let i = 0; i < inRow; i++) {
      for (let b = 0; b < size; b++) out[row * length + i * size + size - 1 - b] = line[b * inRow + i];
    }
  }
  return out;
}

// Put the numbers of a strip or tile, whose corner is (x, y), in their places: each pixel of `out` has `samples`.
function placeChunk(out, values, { width, height }, chunk, x, y, samples, plane) {
  const w = Math.min(chunk.width, width - x);
  const rows = Math.min(chunk.height, height - y);
  const n = chunk.samples;
  for (let row = 0; row < rows; row++) {
    const from = row * chunk.width * n;
    const to = ((y + row) * width + x) * samples + plane;
    if (n === samples) out.set(values.subarray(from, from + w * n), to);
    else for (let k = 0; k < w; k++) out[to + k * samples] = values[from + k];
  }
}

// Unpack LZW as TIFF 6.0 has it: codes of 9 to 12 bits, the first in the highest bits, that widen one code early.
function unpackLzw(bytes, size) {
  if (bytes.length > 1 && bytes[0] === 0 && bytes[1] & 1) {
    refuse("is compressed by an outdated kind of LZW, which is not read: save it again with LZW or deflate.");
  }
  const out = new Uint8Array(size);
  const before = new Uint16Array(4096);
  const last = new Uint8Array(4096);
  const lengths = new Uint16Array(4096);
  for (let i = 0; i < 256; i++) {
    last[i] = i;
    lengths[i] = 1;
  }
  let n = 0;
  let next = 258;
  let width = 9;
  let held = 0;
  let count = 0;
  let previous = -1;
  for (let at = 0; n < size;) {
    while (count < width && at < bytes.length) {
      held = ((held << 8) | bytes[at++]) & 0xffffff;
      count += 8;
    }
    if (count < width) break;
    const code = (held >> (count - width)) & ((1 << width) - 1);
    count -= width;
    if (code === 257) break;
    if (code === 256) {
      next = 258;
      width = 9;
      previous = -1;
      continue;
    }
    const known = code < 256 || (code >= 258 && code < next);
    if (!known && (previous < 0 || code !== next)) damaged("its LZW data hold a code that there is not");
    const from = known ? code : previous;
    const length = lengths[from];
    let first = from;
    for (let i = n + length - 1; i >= n; i--) {
      // from its last byte to its first
      if (i < size) out[i] = last[first];
      if (i > n) first = before[first];
    }
    n += length;
    const byte = last[first];
    if (!known && n < size) out[n] = byte;
    if (!known) n++;
    if (previous >= 0 && next < 4096) {
      before[next] = previous;
      last[next] = byte;
      lengths[next] = lengths[previous] + 1;
      next++;
      if (next + 1 >= 1 << width && width < 12) width++;
    }
    previous = code;
  }
  return out.subarray(0, Math.min(n, size));
}

// Unpack PackBits: a count of bytes to copy, or, if it is negative, how often to repeat one.
function unpackPackBits(bytes, size) {
  const out = new Uint8Array(size);
  let n = 0;
  for (let at = 0; n < size && at < bytes.length;) {
    const count = (bytes[at++] << 24) >> 24;
    if (count === -128) continue;
    const stop = Math.min(size, n + (count < 0 ? 1 - count : 1 + count));
    if (count < 0) {
      if (at >= bytes.length) break;
      out.fill(bytes[at++], n, stop);
      n = stop;
    } else {
      const part = bytes.subarray(at, at + stop - n);
      out.set(part, n);
      n += part.length;
      at += count + 1;
    }
  }
  return out.subarray(0, n);
}

// Decode a strip or tile of JPEG through the browser.
async function jpegChunk(bytes, tables, page, { width, height, samples }) {
  // Adobe's marker says whether three channels are RGB (0) or YCbCr (1): without it, browsers guess.
  const adobe = [0xff, 0xee, 0, 14, 65, 100, 111, 98, 101, 0, 100, 0, 0, 0, 0, page.photometric === 6 ? 1 : 0];
  const start = new Uint8Array([0xff, 0xd8, ...(samples === 3 ? adobe : [])]);
  const shared = tables.subarray(2, tables.length - 2); // without its beginning and end
  const header = jpegHeader(await joined([start, shared, bytes.subarray(2)]));
  refuseLarge(header.height, header.width, 4, bytes.length, Infinity);
  const shown = await shownPixels(new Blob([await joined(header.parts)], { type: "image/jpeg" }), "JPEG");
  if (shown.width < width && shown.width < page.width) damaged("a tile of JPEG is smaller than a tile");
  const out = new Uint8Array(width * height * samples);
  for (let y = 0; y < Math.min(height, shown.height); y++) {
    for (let x = 0; x < Math.min(width, shown.width); x++) {
      for (let c = 0; c < samples; c++) out[(y * width + x) * samples + c] = shown.data[4 * (y * shown.width + x) + c];
    }
  }
  return out;
}

// Return a section as it is shown: through the palette, with white as the larger value, turned, in grey.
function finishSection(numbers, page, noData, image) {
  const { width, height, bits, stored, colours } = page;
  let values = toFloats(numbers, stored);
  let samples = values.length / (width * height);
  if (colours) {
    const through = new Float64Array(3 * values.length);
    for (let i = 0; i < values.length; i++) {
      for (let c = 0; c < 3; c++) through[3 * i + c] = colours.values[3 * values[i] + c];
    }
    values = through;
    samples = 3;
  } else if (page.photometric === 0) {
    const most = stored.startsWith("float") ? 0 : stored.startsWith("int") ? -1 : 2 ** bits - 1;
    if (bits === 64 && most > 0) refuse("has white as 0 and integers of 64 bits: save it in 32 bits, or as floats.");
    for (let i = 0; i < values.length; i++) values[i] = most - values[i];
  }
  if (noData !== null) {
    const share = values.reduce((n, value) => n + (value === noData), 0) / values.length;
    if (share) {
      refuse(
        `holds ${noData} in ${(100 * share).toFixed(1)} % of the pixels of a section, which stands for no data ` +
          "(GDAL_NODATA): cut these parts off, or give them a grey value.",
      );
    }
  }
  const { grey, colour } = greyOf(values, samples, page.opacity && samples === page.samples, page.given);
  if (colour && colours && !image.colour) {
    image.notes.push(
      "It has a lookup table of colours, whose brightness is read. Where its stored values are meant, save it with " +
        "grey ones (Fiji: Image > Lookup Tables > Grays).",
    );
  }
  image.colour = image.colour || colour;
  return oriented(grey, height, width, page.orientation);
}

// Return the value that stands for no data in a GeoTIFF; null if it is 0, which is black, or not given.
async function noDataOf(file, page) {
  const text = (await textOfTag(file, page.tags, "noData")).trim();
  const value = page.stored.startsWith("float") ? Math.fround(Number(text)) : Number(text);
  return text && value && Number.isFinite(value) ? value : null;
}

// Return the size of a pixel from ImageJ's or OME's text, or from the tags of the resolution; null if nothing says it.
async function pixelSizeOf(file, page, text) {
  const [xn, xd] = await tagValues(file, page.tags, "x", [0, 0]);
  const [yn, yd] = await tagValues(file, page.tags, "y", [0, 0]);
  const turned = page.orientation >= 5;
  const swap = (a, b) => (turned ? [b, a] : [a, b]);
  const code = (await tagValues(file, page.tags, "unit", [2]))[0];
  const found = { x: 0, y: 0, unit: { 2: "inch", 3: "cm" }[code] || "" };
  if (xn > 0 && xd > 0 && yn > 0 && yd > 0) {
    [found.x, found.y] = swap(xd / xn, yd / yn);
    found.resolution = [...(turned ? [yn, yd, xn, xd] : [xn, xd, yn, yd]), code];
  }
  const micro = (unit) => unit.replace(/^(\\u00B5|\u00b5|\u03bc|u)m$|^microns?$|^micrometers?$/i, "µm");
  if (text.startsWith("ImageJ=")) {
    const kept = text
      .split("\n")
      .filter((line) => /^(unit|yunit|zunit|spacing|[xyz]origin|finterval|tunit|loop)=/.test(line));
    const said = (name) => (new RegExp(`^${name}=(.*)`, "m").exec(text) || [])[1];
    if (said("unit")) found.unit = micro(said("unit").trim());
    if (Number(said("spacing")) > 0) found.z = Number(said("spacing"));
    if (kept.length) found.imagej = kept;
  }
  const size = (axis) => Number((new RegExp(`PhysicalSize${axis}="([^"]+)"`).exec(text) || [])[1]);
  if (/OME>\s*$/.test(text) && size("X") > 0 && size("Y") > 0) {
    const unit = micro((/PhysicalSizeXUnit="([^"]+)"/.exec(text) || [0, "µm"])[1]);
    Object.assign(found, { unit, resolution: undefined, ...(size("Z") > 0 ? { z: size("Z") } : {}) });
    [found.x, found.y] = swap(size("X"), size("Y"));
  }
  return found.x && (found.unit || found.x !== 1 || found.y !== 1) ? found : null; // 1 of nothing says nothing
}
