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
