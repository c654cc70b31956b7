// Images as a browser gets them: openImage(blob, name) reads TIFF, PNG, NIfTI, and what the browser itself can show.
//
//     const image = await openImage(file, file.name);
//     image.kind, image.count, image.height, image.width, image.channels, image.dtype, image.pixelSize, image.colour
//     const [grey] = await image.section(0);            // Float64Array(height * width), row by row
//
// A classic script without dependencies, for a page, a worker or node. It needs tiff.js and png.js, and, to read volumes,
// nifti.js.
// Values, types and orientation are those that tinyseg.data.images gives; colour, which tinyseg refuses, becomes grey.
//
// openImage resolves to an object with
//     name, kind  as given; "TIFF", "PNG", "JPEG", "NIfTI", ...
//     count       number of sections
//     height, width, channels
//     dtype       "bool" (1 bit: values 0 and 1), "uint8", "uint16", "uint32", "int8", "int16", "int32", "int64",
//                 "uint64", or "float32" for all floats; the values lie in Float64Arrays whatever the type
//     pixelSize   null, or {x, y, unit, ...}: see each reader; unit is "nm", "µm", "mm", "cm", "m", "inch" or ""
//     colour      whether a section was in colour and became grey; it is known once that section has been read
//     notes       sentences about how the file was understood, mostly none
//     section(k)  resolves to an array of `channels` Float64Arrays
// Whatever cannot be read is an Error whose message is a sentence for the user.

const MOST_PIXELS = 1e8; // of a section: 0.8 GB as Float64Array
const DEFLATE_FACTOR = 1100; // deflate makes of a byte at most 1032

async function openImage(blob, name) {
  const said = { name, expected: "an image" };
  return explain(said, async () => {
    if (blob.size === 0) damaged("it is empty, 0 bytes");
    const start = new Uint8Array(await blob.slice(0, 600).arrayBuffer());
    const kind = kindOf(start, name);
    said.expected = `${kind === "AVIF" || kind === "HEIC" ? "an" : "a"} ${kind} file`;
    const unread = () => refuse("is NIfTI, which this page does not read: save it as TIFF.");
    const volume = typeof openNifti === "undefined" ? unread : openNifti;
    const open = { TIFF: openTiff, PNG: openPng, NIfTI: volume }[kind] || openPicture;
    const image = { name, kind, count: 1, channels: 1, pixelSize: null, colour: false, notes: [] };
    await open(blob, image);
    const read = image.section;
    image.section = (k) =>
      explain(said, () => {
        if (!(Number.isInteger(k) && k >= 0 && k < image.count)) {
          refuse(`has sections 0 to ${image.count - 1}: there is no section ${k}.`);
        }
        return read(k);
      });
    return image;
  });
}

// ---- sentences

// Raise an error for the user. `message` follows the name of the file: "is in colour: expected grey."
function refuse(message) {
  throw Object.assign(new Error(message), { reader: "refused" });
}

// Raise an error about a file whose content contradicts itself; `why` says where.
function damaged(why) {
  throw Object.assign(new Error(why), { reader: "damaged" });
}

// Do something with a file, and make a sentence with its name of whatever goes wrong.
async function explain(said, action) {
  try {
    return await action();
  } catch (error) {
    if (error.reader === "refused") throw new Error(`${said.name} ${error.message}`);
    throw new Error(
      `${said.name} cannot be read: expected ${said.expected}, found a damaged file, one cut short or one that ` +
        `changed meanwhile (${error.message || error}). Copy or export it again.`,
      { cause: error },
    );
  }
}

// How files of other kinds begin, and what to do about them.
const OTHER_KINDS = [
  ["%PDF", "is a PDF: save the picture in it as PNG or TIFF."],
  ["PK\x03\x04", "is an archive (zip): unpack it first."],
  ["\x89HDF", "is HDF5, which is not read: save the array (sections, height, width) as TIFF."],
  ["\x93NUMPY", "is a file of NumPy, which is not read: save the array as TIFF."],
  ["ZISRAWFILE", "is a CZI file, which is not read: save it as TIFF (Fiji: File > Import > Bio-Formats)."],
  ["\xda\xce\xbe\x0a", "is an ND2 file, which is not read: save it as TIFF (Fiji: File > Import > Bio-Formats)."],
  ["p\0\0\0", "is a LIF file, which is not read: save it as TIFF (Fiji: File > Import > Bio-Formats)."],
  ["version https://git-lfs", "is a pointer of Git LFS, not the image: git lfs pull fetches it."],
  ["<", "is a web page or another text: expected an image (TIFF, PNG, JPEG, NIfTI). Download the image itself."],
];

// Return the kind of a file by its first bytes; kinds that are not read are refused by name.
function kindOf(bytes, name) {
  const begins = (text, at = 0) => [...text].every((c, i) => bytes[at + i] === c.charCodeAt(0));
  if (["II*\0", "MM\0*", "II+\0", "MM\0+"].some((text) => begins(text))) return "TIFF";
  if (begins("\x89PNG\r\n\x1a\n")) return "PNG";
  if (begins("\xff\xd8\xff")) return "JPEG";
  if (begins("BM")) return "BMP";
  if (begins("GIF8")) return "GIF";
  if (begins("RIFF") && begins("WEBP", 8)) return "WebP";
  if (begins("ftyp", 4)) return begins("avif", 8) ? "AVIF" : "HEIC";
  const named = /\.nii(\.gz)?$/i.test(name);
  if (begins("\x1f\x8b")) {
    if (!named) refuse("is compressed by gzip, and its name does not end in .nii.gz: unpack it first.");
    return "NIfTI";
  }
  if (begins("n+1\0", 344) || begins("n+2\0", 4) || named) return "NIfTI";
  if (begins("DICM", 128))
    refuse("is a DICOM file, which is not read: convert it to NIfTI, for instance with dcm2niix.");
  for (const [text, message] of OTHER_KINDS) if (begins(text)) refuse(message);
  return refuse(
    "is of a kind that is not read: expected TIFF, PNG, JPEG, BMP, WebP or NIfTI, found other content. " +
      "Save it as TIFF or PNG.",
  );
}

// ---- bytes

// Read parts of a blob; the neighbourhood of a small part is kept, since headers are read in small parts.
function partsOf(blob) {
  const WINDOW = 4096;
  let kept = { start: 0, bytes: new Uint8Array(0) };
  return {
    size: blob.size,
    async read(start, length) {
      const end = start + length;
      if (!Number.isSafeInteger(start) || !Number.isSafeInteger(length)) damaged("it has parts at impossible places");
      if (!(start >= 0 && length >= 0 && end <= blob.size)) {
        damaged(`it ends at byte ${blob.size}, and more is expected up to byte ${end}`);
      }
      if (start < kept.start || end > kept.start + kept.bytes.length) {
        const stop = Math.min(blob.size, Math.max(end, start + WINDOW));
        const bytes = new Uint8Array(await blob.slice(start, stop).arrayBuffer());
        if (bytes.length < length) damaged("it became shorter meanwhile");
        if (length > WINDOW) return bytes;
        kept = { start, bytes };
        return bytes.subarray(0, length);
      }
      return kept.bytes.subarray(start - kept.start, end - kept.start);
    },
  };
}

const ARRAYS = {
  bool: Uint8Array, uint8: Uint8Array, uint16: Uint16Array, uint32: Uint32Array, uint64: BigUint64Array,
  int8: Int8Array, int16: Int16Array, int32: Int32Array, int64: BigInt64Array,
  float16: Uint16Array, float32: Float32Array, float64: Float64Array,
};

// Return bytes as numbers of a type: BigInt those of 64 bits, and the bits of 16-bit floats; toFloats takes both.
function numbersOf(bytes, dtype, littleEndian) {
  const type = ARRAYS[dtype];
  const size = type.BYTES_PER_ELEMENT;
  const copy = new Uint8Array(bytes); // aligned, and of its own
  if (size > 1 && !littleEndian) swapBytes(copy, size);
  return new type(copy.buffer, 0, Math.floor(copy.length / size));
}

function swapBytes(bytes, size) {
  for (let i = 0; i + size <= bytes.length; i += size) {
    for (let a = i, b = i + size - 1; a < b; a++, b--) [bytes[a], bytes[b]] = [bytes[b], bytes[a]];
  }
}

// Return the type in which sections of a stored type are given, as tinyseg does.
function givenType(stored) {
  return stored.startsWith("float") ? "float32" : stored;
}

// Return numbers of a stored type as Float64Array, rounded to float32 if they are floats.
function toFloats(numbers, dtype) {
  const out = new Float64Array(numbers.length);
  if (dtype.endsWith("int64")) {
    const limit = BigInt(Number.MAX_SAFE_INTEGER);
    for (let i = 0; i < out.length; i++) {
      if (numbers[i] > limit || numbers[i] < -limit)
        refuse("holds integers beyond 2^53: save it in 32 bits, or as floats.");
      out[i] = Number(numbers[i]);
    }
  } else if (dtype === "float16") {
    for (let i = 0; i < out.length; i++) out[i] = halfFloat(numbers[i]);
  } else if (dtype === "float64") {
    for (let i = 0; i < out.length; i++) out[i] = Math.fround(numbers[i]);
  } else {
    out.set(numbers);
  }
  return out;
}

// Return the number whose 16 bits as a float these are.
function halfFloat(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

// Return the values of rows of 1 to 16 bits each, the first in the highest bits; each row begins with a new byte.
function unpackBits(bytes, bits, valuesInRow, rows) {
  const out = bits > 8 ? new Uint16Array(valuesInRow * rows) : new Uint8Array(valuesInRow * rows);
  const stride = Math.ceil((valuesInRow * bits) / 8);
  const mask = 2 ** bits - 1;
  for (let row = 0, o = 0; row < rows; row++) {
    for (let i = row * stride, n = 0, held = 0, count = 0; n < valuesInRow; n++) {
      while (count < bits) {
        held = ((held << 8) | bytes[i++]) & 0xffffff;
        count += 8;
      }
      count -= bits;
      out[o++] = (held >> count) & mask;
    }
  }
  return out;
}

// Raise an error if pixels would take too much memory, or more than a packed file can hold.
function refuseLarge(height, width, bytesOfPixel, stored, factor) {
  if (!(height > 0 && width > 0)) damaged(`its header says ${height} × ${width} pixels`);
  if (height * width > MOST_PIXELS || height * width * bytesOfPixel > 12 * MOST_PIXELS) {
    refuse(
      `has sections of ${height} × ${width} pixels of ${bytesOfPixel} bytes: up to ${MOST_PIXELS / 1e6} million ` +
        "pixels fit into a browser. Cut it into parts, or make it smaller.",
    );
  }
  if (height * width * bytesOfPixel > Math.max(stored, 1) * factor + 8) {
    damaged(`it has ${stored} bytes, too few for the ${height} × ${width} pixels that its header asks for`);
  }
}

// ---- grey

// Return the pixels of a section as grey, {grey: Float64Array, colour: whether they were in colour}.
//
// `values` holds `samples` numbers for each pixel; `opacity` says that the last of them is an opacity, which must be
// the same everywhere. Channels that are equal are grey. Three others are red, green and blue: they become the luma of
// ITU-R 601, with the weights in 1/65536 and the rounding of Pillow.
function greyOf(values, samples, opacity, dtype) {
  const n = values.length / samples;
  if (opacity && samples > 1) {
    for (let i = samples - 1; i < values.length; i += samples) {
      if (values[i] !== values[samples - 1]) {
        refuse(
          "has an opacity (alpha, transparency) that is not the same everywhere: expected grey or colour. " +
            "Save it without, on the background that is meant.",
        );
      }
    }
  }
  const channels = opacity && samples > 1 ? samples - 1 : samples;
  const grey = new Float64Array(n);
  let equal = true;
  for (let i = 0, o = 0; i < values.length; i += samples, o++) {
    grey[o] = values[i];
    for (let c = 1; c < channels; c++) if (values[i + c] !== values[i]) equal = false;
  }
  if (!equal && channels !== 3) {
    refuse(`has ${channels} channels that differ: expected grey. Save the one channel to use.`);
  }
  if (!equal) {
    const whole = !dtype.startsWith("float");
    for (let i = 0, o = 0; i < values.length; i += samples, o++) {
      const sum = values[i] * 19595 + values[i + 1] * 38470 + values[i + 2] * 7471;
      grey[o] = whole ? Math.floor((sum + 32768) / 65536) : Math.fround(sum / 65536);
    }
  }
  refuseNotFinite(grey, dtype);
  return { grey, colour: !equal };
}

function refuseNotFinite(values, dtype) {
  if (!dtype.startsWith("float")) return;
  for (let i = 0; i < values.length; i++) {
    if (!Number.isFinite(values[i])) {
      refuse("holds NaN or infinity: expected finite grey values. Replace them, or leave the section out.");
    }
  }
}

// Turn and mirror values, row by row, as the orientation tag of EXIF and TIFF says, 1 to 8.
function oriented(values, height, width, orientation) {
  if (!(orientation >= 2 && orientation <= 8)) return values;
  const swap = orientation >= 5;
  const rows = swap ? width : height;
  const columns = swap ? height : width;
  const upsideDown = [3, 4, 7, 8].includes(orientation);
  const mirrored = [2, 3, 6, 7].includes(orientation);
  const out = new values.constructor(values.length);
  for (let y = 0, o = 0; y < rows; y++) {
    const a = upsideDown ? rows - 1 - y : y;
    for (let x = 0; x < columns; x++) {
      const b = mirrored ? columns - 1 - x : x;
      out[o++] = swap ? values[b * width + a] : values[a * width + b];
    }
  }
  return out;
}

// Return the orientation, 1 to 8, that a block of EXIF asks for; 1 if it says none, or is damaged.
function orientationOf(exif) {
  try {
    const view = new DataView(exif.buffer, exif.byteOffset, exif.byteLength);
    const little = view.getUint16(0) === 0x4949;
    const at = view.getUint32(4, little);
    for (let i = 0; i < view.getUint16(at, little); i++) {
      const entry = at + 2 + 12 * i;
      if (view.getUint16(entry, little) === 0x0112) {
        const value = view.getUint16(entry + 8, little);
        return value >= 1 && value <= 8 ? value : 1;
      }
    }
  } catch (error) {
    // Viewers show a picture whose EXIF is damaged as it lies.
  }
  return 1;
}

// ---- pictures that the browser decodes

// Open a JPEG, WebP, BMP, ... through the browser. Its colours are taken as they are stored, without colour profiles.
async function openPicture(blob, image) {
  let content = blob;
  let orientation = 1;
  if (image.kind === "JPEG") {
    const header = jpegHeader(new Uint8Array(await blob.arrayBuffer()));
    refuseLarge(header.height, header.width, 4, blob.size, Infinity);
    ({ orientation, pixelSize: image.pixelSize } = header);
    content = new Blob([await joined(header.parts)], { type: "image/jpeg" });
  }
  const { width, height, data } = await shownPixels(content, image.kind);
  const { grey, colour } = greyOf(data, 4, true, "uint8");
  const pixels = oriented(grey, height, width, orientation);
  const turned = orientation >= 5;
  if (turned && image.pixelSize) [image.pixelSize.x, image.pixelSize.y] = [image.pixelSize.y, image.pixelSize.x];
  Object.assign(image, { height: turned ? width : height, width: turned ? height : width, dtype: "uint8", colour });
  image.section = async () => [pixels.slice()];
}

// Return the pixels, {width, height, data: RGBA}, of a picture that the browser can show.
async function shownPixels(blob, kind) {
  if (typeof createImageBitmap === "undefined" || typeof OffscreenCanvas === "undefined") {
    refuse(
      `holds ${kind}, which only a browser of this decade decodes. Save it as PNG, or as TIFF with LZW or deflate.`,
    );
  }
  let bitmap;
  try {
    bitmap = await createImageBitmap(blob, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch (error) {
    if (kind === "JPEG" || kind === "BMP") damaged("the browser cannot decode it");
    refuse(`is ${kind}, of a kind that this browser does not decode, or damaged: save it as PNG or JPEG.`);
  }
  try {
    refuseLarge(bitmap.height, bitmap.width, 4, blob.size, Infinity);
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d", { willReadFrequently: true });
    refuseHiddenPixels();
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

// Raise an error if the browser gives other pixels than were drawn: some do so, lest a page recognizes them.
function refuseHiddenPixels() {
  const context = new OffscreenCanvas(32, 32).getContext("2d", { willReadFrequently: true });
  const drawn = new ImageData(
    Uint8ClampedArray.from({ length: 4096 }, (_, i) => (i % 4 === 3 ? 255 : (i * i) % 251)),
    32,
  );
  context.putImageData(drawn, 0, 0);
  const found = context.getImageData(0, 0, 32, 32).data;
  if (found.every((value, i) => value === drawn.data[i])) return;
  refuse(
    "is decoded by the browser, and this browser changes the pixels that a page may see (a protection against " +
      "fingerprinting): switch that off for this page, or save the picture as PNG or TIFF.",
  );
}

// Return parts as one array of bytes; Firefox decodes no picture in a blob of several parts.
async function joined(parts) {
  return new Uint8Array(await new Blob(parts).arrayBuffer());
}

// Return what a JPEG says before its pixels, and its parts without EXIF, which not all browsers treat alike.
function jpegHeader(bytes) {
  const found = { height: 0, width: 0, orientation: 1, pixelSize: null, parts: [bytes.subarray(0, 2)] };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 2;
  while (at + 4 <= bytes.length && bytes[at] === 0xff) {
    const marker = bytes[at + 1];
    const end = at + 2 + view.getUint16(at + 2);
    if (marker === 0xff) {
      at++;
      continue;
    }
    if (marker === 0xda || end > bytes.length || end < at + 4) break; // the pixels follow
    const body = bytes.subarray(at + 4, end);
    const text = String.fromCharCode(...body.subarray(0, 6));
    if (marker >= 0xc0 && marker <= 0xcf && ![0xc4, 0xc8, 0xcc].includes(marker) && body.length >= 5) {
      found.height = view.getUint16(at + 5);
      found.width = view.getUint16(at + 7);
    }
    if (marker === 0xe0 && text.startsWith("JFIF\0") && body.length >= 12) {
      const unit = { 1: "inch", 2: "cm" }[body[7]];
      const x = view.getUint16(at + 12);
      const y = view.getUint16(at + 14);
      if (unit && x && y) found.pixelSize = { x: 1 / x, y: 1 / y, unit };
    }
    if (marker === 0xe1) {
      if (text === "Exif\0\0" && found.orientation === 1) found.orientation = orientationOf(body.subarray(6));
    } else {
      found.parts.push(bytes.subarray(at, end));
    }
    at = end;
  }
  if (!found.height) damaged("it does not say how large it is");
  let end = bytes.length - 2;
  while (end > at && !(bytes[end] === 0xff && bytes[end + 1] === 0xd9)) end--;
  if (end <= at) damaged("it ends before its pixels do"); // browsers would show what there is
  found.parts.push(bytes.subarray(at));
  return found;
}

// ---- deflate

// Unpack bytes ("deflate": zlib, "deflate-raw", "gzip") to at most `size` bytes; fewer if there are no more.
//
// `bytes` is a Uint8Array or a Blob. The browser's own decoder is fast, and strict: it refuses bytes behind the end,
// which some programs leave there, and files of several members.
async function inflate(bytes, format, size) {
  const blob = bytes.buffer ? new Blob([bytes]) : bytes;
  if (typeof DecompressionStream !== "undefined") {
    try {
      const stream = blob.stream().pipeThrough(new DecompressionStream(format));
      const out = await readStream(stream, size);
      if (out.length === size) return out;
    } catch (error) {
      // Read again below, which says what is wrong.
    }
  }
  return inflateHere(bytes.buffer ? bytes : new Uint8Array(await blob.arrayBuffer()), format, size);
}

// Read a stream of bytes up to `size` bytes.
async function readStream(stream, size) {
  const reader = stream.getReader();
  const parts = [];
  let length = 0;
  while (length <= size) {
    // one more, since a checksum follows the last byte
    const { done, value } = await reader.read();
    if (done) break;
    parts.push(value);
    length += value.length;
  }
  if (length > size) reader.cancel().catch(() => {});
  const out = new Uint8Array(Math.min(length, size));
  let at = 0;
  for (const part of parts) {
    const taken = part.subarray(0, out.length - at);
    out.set(taken, at);
    at += taken.length;
  }
  return out;
}

function inflateHere(bytes, format, size) {
  let start = 0;
  if (format === "deflate") {
    if ((bytes[0] & 15) !== 8 || ((bytes[0] << 8) | bytes[1]) % 31)
      damaged("its packed data do not begin as zlib's do");
    start = 2;
  } else if (format === "gzip") {
    if (bytes[0] !== 31 || bytes[1] !== 139) damaged("its packed data do not begin as gzip's do");
    start = 10;
    if (bytes[3] & 4) start += 2 + bytes[start] + 256 * bytes[start + 1];
    for (const flag of [8, 16]) if (bytes[3] & flag) start = bytes.indexOf(0, start) + 1 || bytes.length;
    if (bytes[3] & 2) start += 2;
  }
  const { out, end, whole } = unpackDeflate(bytes, start, size);
  if (!whole || format === "deflate-raw") return out;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (end + 4 > bytes.length) damaged("its packed data end early");
  const right = format === "gzip" ? view.getUint32(end, true) === crc32(out) : view.getUint32(end) === adler32(out);
  if (!right) damaged("the checksum of its packed data is wrong");
  if (format === "gzip" && bytes[end + 8] === 31 && bytes[end + 9] === 139 && out.length < size) {
    // another member
    const more = inflateHere(bytes.subarray(end + 8), format, size - out.length);
    const both = new Uint8Array(out.length + more.length);
    both.set(out);
    both.set(more, out.length);
    return both;
  }
  return out;
}

const LENGTH_CODES = [
  3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
];
const DISTANCE_CODES = [
  1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
  8193, 12289, 16385, 24577,
];
const LENGTHS_ORDER = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

// Unpack deflate (RFC 1951) to at most `size` bytes: {out, end: where it ends, whole: whether its end was reached}.
function unpackDeflate(bytes, start, size) {
  let out = new Uint8Array(Math.min(size, 4 * bytes.length + 1024));
  let n = 0;
  let at = start;
  let held = 0;
  let count = 0;
  const take = (bits) => {
    while (count < bits) {
      if (at >= bytes.length) damaged("its packed data end early");
      held |= bytes[at++] << count;
      count += 8;
    }
    const value = held & ((1 << bits) - 1);
    held >>>= bits;
    count -= bits;
    return value;
  };
  const decode = ({ table, bits }) => {
    while (count < bits && at < bytes.length) {
      held |= bytes[at++] << count;
      count += 8;
    }
    const entry = table[held & ((1 << bits) - 1)];
    const length = entry & 15;
    if (!length || length > count) damaged("its packed data hold a code that there is not");
    held >>>= length;
    count -= length;
    return entry >> 4;
  };
  const reserve = (more) => {
    if (n + more <= out.length) return;
    const larger = new Uint8Array(Math.max(Math.min(size + 258, 2 * out.length), n + more));
    larger.set(out);
    out = larger;
  };
  let last = 0;
  while (!last && n <= size) {
    // beyond `size` by less than a copy
    last = take(1);
    const kind = take(2);
    if (kind === 0) {
      at -= count >> 3; // what is left of a byte is skipped; whole bytes that were taken too early go back
      held = count = 0;
      const length = bytes[at] | (bytes[at + 1] << 8);
      if (at + 4 + length > bytes.length) damaged("its packed data end early");
      if (length !== (~(bytes[at + 2] | (bytes[at + 3] << 8)) & 0xffff))
        damaged("its packed data contradict themselves");
      const part = bytes.subarray(at + 4, at + 4 + Math.min(length, size + 1 - n));
      reserve(part.length);
      out.set(part, n);
      n += part.length;
      at += 4 + length;
      continue;
    }
    if (kind === 3) damaged("its packed data hold a block of a kind that there is not");
    const [literals, distances] = kind === 1 ? fixedCodes() : readCodes(take, decode);
    for (let symbol; n <= size && (symbol = decode(literals)) !== 256;) {
      reserve(258);
      if (symbol < 256) {
        out[n++] = symbol;
        continue;
      }
      if (symbol > 285) damaged("its packed data hold a length that there is not");
      const l = symbol - 257;
      const length = LENGTH_CODES[l] + (l < 8 || l === 28 ? 0 : take((l >> 2) - 1));
      const d = decode(distances);
      if (d > 29) damaged("its packed data hold a distance that there is not");
      const distance = DISTANCE_CODES[d] + (d < 4 ? 0 : take((d >> 1) - 1));
      if (distance > n) damaged("its packed data refer to what is before them");
      for (const stop = n + length; n < stop; n++) out[n] = out[n - distance];
    }
  }
  return { out: out.subarray(0, Math.min(n, size)), end: at - (count >> 3), whole: n <= size };
}

// Return the table of a Huffman code, from the next bits to 16 · symbol + length of its code; 0 where there is none.
function codeTable(lengths) {
  const bits = Math.max(1, ...lengths);
  const table = new Uint16Array(1 << bits);
  let code = 0;
  for (let length = 1; length <= bits; length++, code <<= 1) {
    for (let symbol = 0; symbol < lengths.length; symbol++) {
      if (lengths[symbol] !== length) continue;
      let reversed = 0;
      for (let i = 0; i < length; i++) reversed |= ((code >> i) & 1) << (length - 1 - i);
      if (++code > 1 << length) damaged("its packed data hold too many codes");
      for (let i = reversed; i < table.length; i += 1 << length) table[i] = (symbol << 4) | length;
    }
  }
  return { table, bits };
}

function fixedCodes() {
  const lengths = Array.from({ length: 288 }, (_, i) => (i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8));
  return [codeTable(lengths), codeTable(new Array(30).fill(5))];
}

function readCodes(take, decode) {
  const literals = take(5) + 257;
  const distances = take(5) + 1;
  const coded = take(4) + 4;
  const order = new Array(19).fill(0);
  for (let i = 0; i < coded; i++) order[LENGTHS_ORDER[i]] = take(3);
  const code = codeTable(order);
  const lengths = [];
  while (lengths.length < literals + distances) {
    const symbol = decode(code);
    if (symbol < 16) lengths.push(symbol);
    else {
      if (symbol === 16 && !lengths.length) damaged("its packed data repeat a length before the first");
      const times = symbol === 16 ? 3 + take(2) : symbol === 17 ? 3 + take(3) : 11 + take(7);
      const value = symbol === 16 ? lengths[lengths.length - 1] : 0;
      for (let i = 0; i < times; i++) lengths.push(value);
    }
  }
  if (lengths.length > literals + distances) damaged("its packed data hold too many codes");
  return [codeTable(lengths.slice(0, literals)), codeTable(lengths.slice(literals))];
}

function adler32(bytes) {
  let a = 1;
  let b = 0;
  for (let i = 0; i < bytes.length;) {
    for (const stop = Math.min(i + 3800, bytes.length); i < stop; i++) b += a += bytes[i];
    a %= 65521;
    b %= 65521;
  }
  return ((b << 16) | a) >>> 0;
}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(...parts) {
  let crc = -1;
  for (const part of parts) for (let i = 0; i < part.length; i++) crc = (crc >>> 8) ^ CRC_TABLE[(crc ^ part[i]) & 255];
  return (crc ^ -1) >>> 0;
}

// Pack bytes as zlib, or gzip, does; null where there is no packer.
async function deflate(bytes, format = "deflate") {
  if (typeof CompressionStream === "undefined") return null;
  const stream = new Blob([bytes]).stream().pipeThrough(new CompressionStream(format));
  return readStream(stream, Infinity);
}
