// Images as a browser gets them: openImage(blob, name) reads TIFF, PNG, NIfTI, and what the browser itself can show.
//
//     const image = await openImage(file, file.name);
//     image.kind, image.count, image.height, image.width, image.channels, image.dtype, image.pixelSize, image.colour
//     const [grey] = await image.section(0);            // Float64Array(height * width), row by row
//
// A classic script without dependencies, for a page, a worker or node. It needs deflate.js, pictures.js, png.js, the three
// files of TIFF, and, to read volumes, nifti.js.
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
