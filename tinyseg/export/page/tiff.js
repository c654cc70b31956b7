// TIFF: stacks as microscopes and Fiji write them, read a section at a time, and written so that Fiji opens them.
//
// TIFF 6.0 and BigTIFF in both byte orders, strips and tiles; without compression, or with LZW, deflate, PackBits, and
// JPEG where the browser decodes it. Which pages are sections is decided as in tinyseg.data.tiffs. Needs images.js.

// Bytes of a number of each type that a tag can have.
const TIFF_SIZES = [0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 8, 8];
const TIFF_TAGS = {
  subfile: 254, width: 256, height: 257, bits: 258, compression: 259, photometric: 262, fillOrder: 266,
  description: 270, stripOffsets: 273, orientation: 274, samples: 277, rows: 278, stripBytes: 279, x: 282, y: 283,
  planar: 284, unit: 296, predictor: 317, colours: 320, tileWidth: 322, tileHeight: 323, tileOffsets: 324,
  tileBytes: 325, extra: 338, format: 339, jpegTables: 347, depth: 32997, planes: 33629, noData: 42113,
};
// Kinds of packing that are read, with how many times as many bytes they can make at most.
const TIFF_FACTORS = { 1: 1, 5: 3000, 7: Infinity, 8: DEFLATE_FACTOR, 32773: 64, 32946: DEFLATE_FACTOR };
const TIFF_PACKINGS = {
  2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 6: "an outdated JPEG", 33003: "JPEG 2000", 33005: "JPEG 2000",
  34661: "JBIG", 34676: "LogLuv", 34712: "JPEG 2000", 34887: "LERC", 34892: "lossy JPEG", 34925: "LZMA", 34933: "PNG",
  34934: "JPEG XR", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
};
const MOST_SECTIONS = 1e6;
const TIFF_COLOURS = { 4: "a mask", 5: "CMYK", 6: "YCbCr", 8: "CIELab", 32803: "a colour filter", 34892: "raw" };

// Open a TIFF. `pixelSize` is {x, y, unit}, with z if the distance of sections is known, and with what writeTiff keeps:
// resolution [x, x's divisor, y, y's divisor, unit], and the lines of ImageJ's text about units.
async function openTiff(blob, image) {
  const file = await tiffFile(blob);
  const all = await readDirectories(file);
  const full = all.filter((page) => !(page.number("subfile", 0) & 5)); // 1: a smaller copy, 4: an opacity
  const pages = [];
  for (const page of full.length ? full : all) pages.push(await describePage(file, page));
  const first = pages[0];
  const text = await textOfTag(file, first.tags);
  const sections = arrangeSections(file, all.length, pages, text, image);
  const shape = (page) => (page.orientation >= 5 ? [page.width, page.height] : [page.height, page.width]);
  const [height, width] = shape(first);
  Object.assign(image, { height, width, dtype: first.given, count: sections.length });
  sections.forEach(({ page }, k) => {
    const [h, w] = shape(page);
    if (h === height && w === width && page.given === first.given) return;
    refuse(
      `has sections that differ: section 0 is ${height} × ${width} ${first.given}, section ${k} is ${h} × ${w} ` +
        `${page.given}. Crop, resize or convert them alike, or save them as files of their own.`,
    );
  });
  refuseCutShort(file, sections);
  refuseChannelsLast(image);
  image.pixelSize = await pixelSizeOf(file, first, text);
  const noData = await noDataOf(file, first);
  image.section = async (k) => {
    const { page, plane, skip } = sections[k];
    const read = await pagePixels(file, page, plane, skip);
    return [finishSection(read, page, noData, image)];
  };
}

// Return the parts of a file, with how its numbers are stored.
async function tiffFile(blob) {
  const parts = partsOf(blob);
  const start = await parts.read(0, 8);
  const little = start[0] === 0x49;
  const file = { ...parts, little, big: start[little ? 2 : 3] === 43, budget: blob.size };
  file.view = (bytes) => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  file.offset = (view, at) => (file.big ? Number(view.getBigUint64(at, little)) : view.getUint32(at, little));
  file.first = file.big ? file.offset(file.view(await parts.read(8, 8)), 0) : file.offset(file.view(start), 4);
  return file;
}

// Return the pages of a file: where their tags are, and `number(name, otherwise)` for tags of one number.
async function readDirectories(file) {
  const { big, little } = file;
  const pages = [];
  const seen = new Set();
  const entrySize = big ? 20 : 12;
  const countSize = big ? 8 : 2;
  const inside = big ? 8 : 4;
  for (let at = file.first; at;) {
    if (seen.has(at)) damaged("its pages follow each other in a circle");
    seen.add(at);
    const counted = file.view(await file.read(at, countSize));
    const count = big ? Number(counted.getBigUint64(0, little)) : counted.getUint16(0, little);
    const length = countSize + count * entrySize + inside;
    if ((file.budget -= length) < 0) damaged("its pages lie over each other");
    const view = file.view((await file.read(at, length)).slice());
    const tags = new Map();
    for (let i = 0; i < count; i++) {
      const entry = countSize + i * entrySize;
      const tag = view.getUint16(entry, little);
      const type = view.getUint16(entry + 2, little);
      const n = file.offset(view, entry + 4);
      const size = n * (TIFF_SIZES[type] || 0);
      const place = entry + 4 + inside;
      if (!size || tags.has(tag)) continue;
      const held = size <= inside ? view.buffer.slice(place, place + size) : null;
      tags.set(tag, { type, count: n, size, held, at: held ? 0 : file.offset(view, place) });
    }
    const number = (name, otherwise) => {
      const tag = tags.get(TIFF_TAGS[name]);
      return tag && tag.held && tag.type !== 2 ? numbersOfTag(file, tag, new DataView(tag.held))[0] : otherwise;
    };
    pages.push({ tags, number });
    at = file.offset(view, length - inside);
  }
  if (!pages.length) damaged("it has no page");
  return pages;
}

// Return the numbers of a tag; a fraction is two of them.
function numbersOfTag(file, { type, count }, view) {
  const l = file.little;
  const size = TIFF_SIZES[type];
  const fraction = type === 5 || type === 10;
  const read = {
    3: (at) => view.getUint16(at, l), 4: (at) => view.getUint32(at, l), 5: (at) => view.getUint32(at, l),
    6: (at) => view.getInt8(at), 8: (at) => view.getInt16(at, l), 9: (at) => view.getInt32(at, l),
    10: (at) => view.getInt32(at, l), 11: (at) => view.getFloat32(at, l), 12: (at) => view.getFloat64(at, l),
    13: (at) => view.getUint32(at, l), 16: (at) => Number(view.getBigUint64(at, l)),
    17: (at) => Number(view.getBigInt64(at, l)), 18: (at) => Number(view.getBigUint64(at, l)),
  }[type] || ((at) => view.getUint8(at));
  const n = fraction ? 2 * count : count;
  const step = fraction ? size / 2 : size;
  return Array.from({ length: n }, (_, i) => read(i * step));
}

async function bytesOfTag(file, tag) {
  return tag.held ? new Uint8Array(tag.held) : file.read(tag.at, tag.size);
}

// Return the numbers of the tag with this name, or `otherwise` if the page does not have it.
async function tagValues(file, tags, name, otherwise) {
  const tag = tags.get(TIFF_TAGS[name]);
  return tag ? numbersOfTag(file, tag, file.view(await bytesOfTag(file, tag))) : otherwise;
}

async function textOfTag(file, tags, name = "description") {
  const tag = tags.get(TIFF_TAGS[name]);
  if (!tag) return "";
  const bytes = await bytesOfTag(file, tag);
  const text = new TextDecoder().decode(bytes);
  // ImageJ writes micrometres in Latin-1.
  return (text.includes("\ufffd") ? new TextDecoder("latin1").decode(bytes) : text).replace(/\0+$/, "");
}

// Return what a page is, or raise an error that names what is not read. Where its pixels are is looked up later.
async function describePage(file, { tags, number }) {
  const page = { tags, number, samples: number("samples", 1), compression: number("compression", 1) };
  for (const name of ["width", "height", "photometric"]) page[name] = number(name);
  for (const name of ["planar", "predictor", "orientation", "fillOrder"]) page[name] = number(name, 1);
  if (!(page.orientation >= 1 && page.orientation <= 8)) page.orientation = 1;
  const { compression, samples, width, height } = page;
  const counts = await tagValues(file, tags, "bits", [1]);
  const formats = await tagValues(file, tags, "format", [1]);
  const bits = counts[0];
  const format = formats[0] === 4 ? 1 : formats[0];
  if (!(compression in TIFF_FACTORS)) {
    refuse(
      `is compressed by ${TIFF_PACKINGS[compression] || `a method with the number ${compression}`}, which is not ` +
        "read here: save it without compression, or with LZW or deflate (zip).",
    );
  }
  if (counts.some((n) => n !== bits) || formats.some((n) => n !== formats[0])) {
    refuse("has channels of several types: save the one channel to use.");
  }
  const stored = format === 3 ? { 16: "float16", 32: "float32", 64: "float64" }[bits]
    : format === 2 ? { 8: "int8", 16: "int16", 32: "int32", 64: "int64" }[bits]
    : format !== 1 ? null
    : bits === 1 ? "bool" : bits >= 2 && bits <= 8 ? "uint8" : bits > 8 && bits <= 16 ? "uint16"
    : { 32: "uint32", 64: "uint64" }[bits];
  if (!stored) {
    const what = { 2: "integers", 3: "floats", 5: "complex integers", 6: "complex numbers" }[format] || "values";
    refuse(`has ${what} of ${bits} bits, which are not read: save it in 8 or 16 bits, or as 32-bit floats.`);
  }
  if (![undefined, 0, 1, 2, 3].includes(page.photometric) && !(page.photometric === 6 && compression === 7)) {
    const what = TIFF_COLOURS[page.photometric] || `number ${page.photometric}`;
    refuse(`has values of a kind that is not read (${what}): expected grey or RGB. Convert it to grey.`);
  }
  if (number("depth", 1) > 1) refuse("holds bricks of several sections: save each section as a page.");
  if (compression === 7 && (bits !== 8 || format !== 1 || page.planar !== 1 || ![1, 3].includes(samples))) {
    refuse("is compressed by JPEG in more than 8 bits, or in planes, which is not read: save it with LZW or deflate.");
  }
  if (page.planar !== 1 && page.planar !== 2) damaged("its channels are arranged in an unknown way");
  if (!(samples >= 1)) damaged("its pages have no channels");
  refuseLarge(height, width, samples * Math.max(1, bits / 8), 1, Infinity);
  const extra = await tagValues(file, tags, "extra", []);
  page.opacity = samples > 1 && [1, 2].includes(extra[extra.length - 1]);
  if (page.photometric === 3) {
    if (!["bool", "uint8", "uint16"].includes(stored)) damaged("its palette has no numbers of colours");
    page.colours = await colourMap(file, tags, 2 ** bits);
  }
  const given = page.colours ? page.colours.dtype : givenType(stored);
  return Object.assign(page, { bits, stored, given, tiled: tags.has(TIFF_TAGS.tileWidth) });
}

// Return the colours of a palette, {values: red, green, blue for each, dtype}; 16 bits, unless they are 8 widened ones.
async function colourMap(file, tags, count) {
  const given = await tagValues(file, tags, "colours", null);
  if (!given) return null;
  if (given.length < 3 * count) damaged(`its palette has ${given.length} numbers of ${3 * count}`);
  const largest = given.reduce((a, b) => Math.max(a, b), 0);
  const asStored = largest < 256 || (given.some((n) => n % 257) && given.some((n) => n % 256));
  const values = new Uint16Array(3 * count);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) values[3 * i + c] = given[c * count + i] >> (asStored ? 0 : 8);
  }
  return { values, dtype: asStored && largest >= 256 ? "uint16" : "uint8" };
}

// ---- which pages are sections

// Return [{page, plane, skip}, ...]: section k is a page, one of its planes, or lies `skip` sections behind its start.
function arrangeSections(file, directories, pages, text, image) {
  const first = pages[0];
  const alone = pages.length === 1;
  const block = (n) => {
    const size = (first.height * first.width * first.samples * first.bits) / 8;
    if (!(Number.isInteger(n) && n >= 1 && n <= MOST_SECTIONS && n * size <= file.size)) {
      damaged(`it has ${file.size} bytes, too few for the ${n} sections that its text asks for`);
    }
    return Array.from({ length: n }, (_, k) => ({ page: first, plane: null, skip: k }));
  };
  let sections = pages.map((page) => ({ page, plane: null, skip: 0 }));
  if (text.startsWith("ImageJ=")) {
    const said = (name) => Number((new RegExp(`^${name}=(\\d+)`, "m").exec(text) || [0, 1])[1]);
    const channels = said("channels");
    const others = said("slices") * said("frames");
    if (channels > 1 && first.samples === 1) refuseChannels(channels, others);
    const n = Math.max(said("images"), others * (first.samples === 1 ? channels : 1));
    if (alone && n > 1) sections = block(n);
  } else if (/OME>\s*$/.test(text)) {
    sections = sections.slice(0, omePlanes(text, directories, pages.length, image));
  } else if (text.startsWith('{"shape":')) {
    sections = shapedSections(text, sections, block, image);
  } else if (alone && first.tags.has(TIFF_TAGS.planes)) {
    sections = block(first.tags.get(TIFF_TAGS.planes).count); // MetaMorph's stack
  }
  return sections;
}

// Return the sections of a file in which tifffile has written the shape of an array.
function shapedSections(text, sections, block, image) {
  const { page } = sections[0];
  const alone = sections.length === 1;
  if (page.bits === 1 && page.photometric === 0) {
    refuse(
      "is a boolean array of tifffile, and the file says that True is black: what is meant is not known. Save " +
        'integers, 255 for white: tifffile.imwrite(path, 255 * mask.astype("uint8")).',
    );
  }
  let said = {};
  try {
    said = JSON.parse(text);
  } catch (error) {
    // It is a text as any other.
  }
  const shape = Array.isArray(said.shape) ? said.shape : [];
  const axes = String(said.axes || "");
  const product = (sizes) => sizes.reduce((a, b) => a * b, 1);
  const channels = axes.length === shape.length && axes.includes("C") ? shape[axes.indexOf("C")] : 1;
  if (channels > 1) refuseChannels(channels, product(shape.slice(0, -2)) / channels);
  if (alone && page.planar === 2 && !axes && product(shape.slice(0, -2)) === page.samples) {
    image.notes.push(
      `It is read as a stack of ${page.samples} sections, not as one picture in colour: tifffile writes both alike.`,
    );
    return Array.from({ length: page.samples }, (_, k) => ({ page, plane: k, skip: 0 }));
  }
  const named = product(shape) / (page.height * page.width * page.samples);
  if (alone && said.truncated) return block(named);
  if (named > sections.length) damaged(`its text names ${named} sections, and it has ${sections.length} pages`);
  return sections;
}

// Raise an error about several channels, unless they can only be the sections of a stack.
function refuseChannels(channels, others) {
  if (others === 1 && channels > 4) return;
  refuse(
    `has ${channels} channels: expected grey. Save the one channel to use (Fiji: Image > Color > Split Channels), ` +
      "or, if these are sections, save the stack with axes ZYX.",
  );
}

// Return how many pages are planes of the images that a text of OME describes; in any other order they are refused.
function omePlanes(text, directories, pages, image) {
  const attribute = (element, name) => (new RegExp(`\\s${name}="([^"]*)"`).exec(element) || [])[1];
  const number = (element, name, otherwise) => {
    const value = attribute(element, name);
    return value === undefined || !Number.isFinite(Number(value)) ? otherwise : Number(value);
  };
  const own = attribute((/<(\w+:)?OME\s[^<>]*>/.exec(text) || [""])[0], "UUID");
  const others = [...text.matchAll(/<(?:\w+:)?UUID\b([^<>]*)>([^<]*)</g)].filter(([, , id]) => id.trim() !== own);
  const names = new Set(others.map(([, attributes]) => attribute(attributes, "FileName") || "a file without a name"));
  const alone = names.size === 1; // then it is this file, which may have another name now
  for (const name of names) {
    if (own === undefined && (alone || name.toLowerCase() === image.name.toLowerCase())) names.delete(name);
  }
  let planes = 0;
  for (const [element] of text.matchAll(/<(?:\w+:)?Pixels\b[\s\S]*?(?:<\/(?:\w+:)?Pixels>|$)/g)) {
    const start = /^.[^<>]*/.exec(element)[0];
    const samples = number(element, "SamplesPerPixel", 1) || 1;
    const size = { Z: number(start, "SizeZ", 1), C: number(start, "SizeC", 1) / samples, T: number(start, "SizeT", 1) };
    const total = size.Z * size.C * size.T;
    if (!(total <= 100 * Math.max(directories, 10)))
      damaged(`its text claims many more planes than its ${directories} pages`);
    if (size.C > 1) refuseChannels(size.C, size.Z * size.T);
    const order = (attribute(start, "DimensionOrder") || "XYZCT").slice(2);
    for (const [data] of names.size ? [] : element.matchAll(/<(?:\w+:)?TiffData\b[^<>]*>/g)) {
      let plane = 0;
      let step = 1;
      for (const axis of order) {
        plane += step * number(data, `First${axis}`, 0);
        step *= size[axis];
      }
      if (plane + planes !== number(data, "IFD", 0)) {
        refuse(
          "has planes in another order than its pages, by its text of OME: save it again as TIFF " +
            "(Fiji: Save As > Tiff).",
        );
      }
    }
    planes += total;
  }
  if (names.size) {
    image.notes.push(
      `It is one file of several that belong together: its own ${pages} sections are read, and no others ` +
        `(${[...names].sort().slice(0, 3).join(", ")}${names.size > 3 ? ", …" : ""}).`,
    );
    return pages;
  }
  if (planes > pages) damaged(`its text names ${planes} planes, and it has ${pages} pages`);
  if (planes && planes < pages)
    image.notes.push(`Its text of OME names ${planes} of its ${pages} pages: the others are left out.`);
  return planes || pages;
}

// Raise an error if a section in one strip ends beyond the end of the file; others are found out when they are read.
function refuseCutShort(file, sections) {
  for (const { page, skip } of sections) {
    const offset = page.tags.get(TIFF_TAGS.stripOffsets);
    if (!offset || offset.count !== 1) continue;
    const pixels = page.height * Math.ceil((page.width * page.samples * page.bits) / 8);
    const size = page.compression === 1 ? (page.planar === 2 ? 0 : pixels) : page.number("stripBytes", 0);
    const end = page.number("stripOffsets", 0) + (skip + 1) * size;
    if (end > file.size) damaged(`it ends at byte ${file.size}, and more is expected up to byte ${end}`);
  }
}

function refuseChannelsLast({ height, width, count, notes }) {
  if (Math.min(height, count) <= 2 * width) return;
  const said =
    `a stack of ${count} sections of ${height} × ${width} pixels. If its last axis counts sections or channels, ` +
    "save it with that axis first: numpy.moveaxis(array, -1, 0).";
  if (width <= 4) refuse(`is ${said}`);
  notes.push(`It is ${said}`);
}

// ---- pixels

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

// ---- writing

// Write grey sections as a TIFF that Fiji opens as a stack: a Blob.
//
// `sections` is an array, or an (async) iterable, of arrays of height · width numbers; with `count` pages of 32-bit
// floats beyond 4 GB become a BigTIFF. `dtype` is "uint8", "uint16" or "float32"; `pixelSize` is openImage's.
async function writeTiff(sections, { width, height, dtype, pixelSize = null, count = sections.length }) {
  const type = { uint8: Uint8Array, uint16: Uint16Array, float32: Float32Array }[dtype];
  if (!type) throw new Error(`A TIFF is written as uint8, uint16 or float32, not as ${dtype}: convert the pixels.`);
  const size = type.BYTES_PER_ELEMENT;
  const big = (count || 1) * height * width * size > 2 ** 32 - 2 ** 25;
  const parts = [tiffHeader(big)];
  let at = parts[0].length;
  let k = 0;
  let before = null;
  for await (const section of sections) {
    if (section.length !== width * height) {
      throw new Error(
        `A section of ${height} × ${width} pixels was given ${section.length} values: give one for each.`,
      );
    }
    const bytes = new Uint8Array(type.from(section).buffer);
    const packed = await deflate(bytes);
    const text = k ? null : describeStack(count, dtype, pixelSize);
    const page = tiffPage({
      width,
      height,
      bits: 8 * size,
      float: dtype === "float32",
      packed: !!packed,
      text,
      pixelSize,
      big,
      at,
    });
    if (before) before.link(at);
    before = page;
    const pixels = packed || bytes;
    const padding = new Uint8Array(-pixels.length & 7);
    page.setLength(pixels.length);
    parts.push(page.bytes, pixels, padding);
    at += page.bytes.length + pixels.length + padding.length;
    k++;
    if (!big && at > 2 ** 32 - 1)
      throw new Error("A TIFF beyond 4 GB needs the number of its sections beforehand: give count.");
  }
  if (!k) throw new Error("A TIFF needs at least one section: none was given.");
  return new Blob(parts, { type: "image/tiff" });
}

function tiffHeader(big) {
  return new Uint8Array(big ? [73, 73, 43, 0, 8, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0, 0] : [73, 73, 42, 0, 8, 0, 0, 0]);
}

// Return ImageJ's text about a stack. Without "images=", ImageJ reads all pages, which may be packed.
function describeStack(count, dtype, pixelSize) {
  const lines = ["ImageJ=1.54f", ...(count > 1 ? [`slices=${count}`] : [])];
  const kept = (pixelSize && pixelSize.imagej) || [];
  lines.push(...kept);
  if (!kept.length && pixelSize && pixelSize.unit) lines.push(`unit=${pixelSize.unit}`);
  if (!kept.length && pixelSize && pixelSize.z) lines.push(`spacing=${pixelSize.z}`);
  if (dtype === "float32") lines.push("min=0.0", "max=1.0"); // what ImageJ shows as black and white
  return lines
    .map((line) => line.replace(/[^\x00-\x7f]/g, (c) => `\\u00${c.charCodeAt(0).toString(16).toUpperCase()}`) + "\n")
    .join("");
}

// Return the tags of a page, whose pixels follow it: {bytes, link(at): say where the next page is, setLength(n)}.
function tiffPage({ width, height, bits, float, packed, text, pixelSize, big, at }) {
  const entries = [
    [256, 4, width], [257, 4, height], [258, 3, bits], [259, 3, packed ? 8 : 1], [262, 3, 1],
    [270, 2, text && new TextEncoder().encode(text + "\0")], [273, big ? 16 : 4, 0], [277, 3, 1], [278, 4, height],
    [279, 4, 0], ...resolutionEntries(pixelSize), [339, 3, float ? 3 : 1],
  ].filter(([, , value]) => value !== null);
  const start = big ? 8 : 2;
  const entrySize = big ? 20 : 12;
  const inside = big ? 8 : 4;
  const table = start + entries.length * entrySize;
  const outside = entries
    .filter(([, , value]) => value.length > inside)
    .reduce((n, [, , value]) => n + value.length + (-value.length & 7), 0);
  let next = (table + inside + 7) & ~7;
  const bytes = new Uint8Array(next + outside);
  const view = new DataView(bytes.buffer);
  const places = {};
  const put = (place, value) =>
    big ? view.setBigUint64(place, BigInt(value), true) : view.setUint32(place, value, true);
  if (big) put(0, entries.length);
  else view.setUint16(0, entries.length, true);
  entries.forEach(([tag, kind, value], i) => {
    const entry = start + i * entrySize;
    const place = (places[tag] = entry + 4 + inside);
    const content = typeof value === "object";
    view.setUint16(entry, tag, true);
    view.setUint16(entry + 2, kind, true);
    put(entry + 4, content ? (kind === 5 ? 1 : value.length) : 1);
    if (!content)
      view.setUint32(place, value, true); // a number of 16 bits has zeros behind it
    else if (value.length <= inside) bytes.set(value, place);
    else {
      put(place, at + next);
      bytes.set(value, next);
      next += value.length + (-value.length & 7);
    }
  });
  put(places[273], at + bytes.length);
  return { bytes, link: (to) => put(table, to), setLength: (n) => view.setUint32(places[279], n, true) };
}

// Return the tags of the resolution: those that the image had, or else what makes `pixelSize`.
function resolutionEntries(pixelSize) {
  if (!pixelSize) return [];
  const MOST = 2 ** 32 - 1;
  const part = (n) => (n < 4000 ? 1e6 : n < 4e6 ? 1000 : 1);
  const fraction = (size) =>
    size < 1 ? [Math.round(part(1 / size) / size), part(1 / size)] : [part(size), Math.round(part(size) * size)];
  const unit = { inch: 2, cm: 3 }[pixelSize.unit] || 1;
  const [xn, xd, yn, yd, code] = pixelSize.resolution || [...fraction(pixelSize.x), ...fraction(pixelSize.y), unit];
  if (![xn, xd, yn, yd].every((n) => Number.isInteger(n) && n > 0 && n <= MOST)) return [];
  const bytes = (a, b) => {
    const view = new DataView(new ArrayBuffer(8));
    view.setUint32(0, a, true);
    view.setUint32(4, b, true);
    return new Uint8Array(view.buffer);
  };
  return [
    [282, 5, bytes(xn, xd)],
    [283, 5, bytes(yn, yd)],
    [296, 3, [1, 2, 3].includes(code) ? code : 2],
  ];
}
