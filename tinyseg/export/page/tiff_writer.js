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
