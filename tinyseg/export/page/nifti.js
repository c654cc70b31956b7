// NIfTI: volumes (.nii, .nii.gz; NIfTI-1 and 2, both orders of bytes) as axial sections, and label volumes written.
//
// Section k is array[:, :, k], as in tinyseg.data.images: X runs down its rows, Y along them; a fourth axis holds the
// channels. Needs images.js, which works without it.

const NIFTI_TYPES = {
  2: "uint8", 4: "int16", 8: "int32", 16: "float32", 64: "float64", 256: "int8", 512: "uint16", 768: "uint32",
  1024: "int64", 1280: "uint64",
};
const NIFTI_MOST = 1.2e9; // bytes of a gzipped volume, which is unpacked into memory

// Open a volume. `image.header` is what writeNifti takes; its `affine` (16 numbers, row by row) is null without a code.
async function openNifti(blob, image) {
  const start = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  const gzipped = start[0] === 0x1f && start[1] === 0x8b;
  const begin = gzipped ? await inflate(blob, "gzip", 544) : new Uint8Array(await blob.slice(0, 544).arrayBuffer());
  const header = readNiftiHeader(begin);
  const { shape, stored, offset } = header;
  const [X, Y, count, channels] = [...shape, 1, 1];
  const size = ARRAYS[stored].BYTES_PER_ELEMENT;
  const plane = X * Y * size;
  const scaled = header.slope !== 1 || header.intercept !== 0;
  refuseLarge(X, Y, size, blob.size, gzipped ? DEFLATE_FACTOR : 1);
  const end = offset + plane * count * channels;
  if (end > blob.size * (gzipped ? DEFLATE_FACTOR : 1))
    damaged(`it has ${blob.size} bytes, too few for the ${end} that its header asks for`);
  if (gzipped && end > NIFTI_MOST)
    refuse(`takes ${(end / 1e9).toFixed(1)} GB of memory: unpack it (.nii), which is read in parts.`);
  let whole = null;
  const read = async (from, length) => {
    if (!gzipped) return new Uint8Array(await blob.slice(from, from + length).arrayBuffer());
    whole = whole || inflate(blob, "gzip", end);
    return (await whole).subarray(from, from + length);
  };
  header.bytes = await read(0, offset);
  header.gzipped = gzipped;
  Object.assign(image, { height: X, width: Y, count, channels, dtype: scaled ? "float32" : givenType(stored), header });
  const [x, y, z] = header.zooms; // X runs down
  if (x > 0 && y > 0) image.pixelSize = { x: y, y: x, unit: header.unit, ...(z > 0 ? { z } : {}) };
  image.section = async (k) => {
    const planes = [];
    for (let c = 0; c < channels; c++) {
      const bytes = await read(offset + (c * count + k) * plane, plane);
      if (bytes.length < plane) damaged(`it ends in section ${k} of ${count}`);
      planes.push(niftiPlane(numbersOf(bytes, stored, header.little), header, X, Y, scaled, image.dtype));
    }
    return planes;
  };
}

// Return a plane (X, Y) of the file, in which X runs fastest, with Y running fastest, and its values scaled.
function niftiPlane(numbers, { stored, slope, intercept }, X, Y, scaled, dtype) {
  const values = scaled && stored === "float64" ? numbers : toFloats(numbers, stored);
  const out = new Float64Array(X * Y);
  for (let x = 0, o = 0; x < X; x++) {
    for (let y = 0; y < Y; y++) {
      const value = values[y * X + x];
      out[o++] = scaled ? Math.fround(value * slope + intercept) : value;
    }
  }
  refuseNotFinite(out, dtype);
  return out;
}

function readNiftiHeader(bytes) {
  if (bytes.length < 348) damaged(`it has ${bytes.length} bytes, and a header has 348`);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const little = [348, 540].includes(view.getInt32(0, true));
  const size = view.getInt32(0, little);
  const second = size === 540;
  const text = String.fromCharCode(...(second ? bytes.subarray(4, 8) : bytes.subarray(344, 348)));
  if (/^ni[12]\0$/.test(text)) refuse("is one half of a pair of files, .hdr and .img: save it as one file, .nii.gz.");
  if (![348, 540].includes(size) || !["n+1\0", "n+2\0"].includes(text)) damaged("it does not begin as NIfTI does");
  if (second && bytes.length < 540) damaged(`it has ${bytes.length} bytes, and a header has 540`);
  const int = (at1, at2) => (second ? Number(view.getBigInt64(at2, little)) : view.getInt16(at1, little));
  const float = (at1, at2) => (second ? view.getFloat64(at2, little) : view.getFloat32(at1, little));
  const code = (at1, at2) => (second ? view.getInt32(at2, little) : view.getInt16(at1, little));
  const axes = int(40, 16);
  const sizes = Array.from({ length: 7 }, (_, i) => int(42 + 2 * i, 24 + 8 * i));
  if (!(axes >= 1 && axes <= 7)) damaged(`it has ${axes} axes`);
  const given = sizes.slice(0, axes);
  const shape = given.filter((n, i) => i < 3 || n !== 1);
  if (shape.length < 2 || shape.length > 4 || given.some((n) => n < 1)) {
    refuse(
      `has shape (${given.join(", ")}): expected (X, Y), (X, Y, Z), or (X, Y, Z, channels). ` +
        "Take out the volume to use and save it by itself.",
    );
  }
  const type = view.getInt16(second ? 12 : 70, little);
  const stored = NIFTI_TYPES[type];
  if (!stored) refuse(`has values of the type ${type} of NIfTI: expected grey integers or floats. Save one component.`);
  const offset = second ? Number(view.getBigInt64(168, little)) : Math.trunc(view.getFloat32(108, little));
  const least = size + 4;
  if (!(offset >= least && offset <= 1 << 24))
    damaged(`its voxels begin at byte ${offset}: expected ${least} to ${1 << 24}`);
  let slope = float(112, 176);
  let intercept = float(116, 184);
  if (!Number.isFinite(slope) || slope === 0) [slope, intercept] = [1, 0]; // no scale
  if (!Number.isFinite(intercept)) damaged("its scale has an intercept that is no number");
  const zooms = Array.from({ length: 4 }, (_, i) => Math.abs(float(76 + 4 * i, 104 + 8 * i))); // the first is a sign
  const units = second ? view.getInt32(500, little) : bytes[123];
  const unit = { 1: "m", 3: "µm" }[units & 7] || "mm";
  const header = { little, second, shape, stored, offset, slope, intercept, zooms: zooms.slice(1), unit, affine: null };
  const row = (i) => Array.from({ length: 4 }, (_, j) => float(280 + 16 * i + 4 * j, 400 + 32 * i + 8 * j));
  if (code(254, 348) > 0) header.affine = [...row(0), ...row(1), ...row(2), 0, 0, 0, 1];
  else if (code(252, 344) > 0) {
    const [b, c, d, x, y, z] = Array.from({ length: 6 }, (_, i) => float(256 + 4 * i, 352 + 8 * i));
    header.affine = affineOfQuaternion([b, c, d], [x, y, z], header.zooms, float(76, 104) < 0 ? -1 : 1);
  }
  return header;
}

// Return the affine (16 numbers) of a rotation as NIfTI stores it: three of the four numbers of a quaternion.
function affineOfQuaternion([b, c, d], [x, y, z], zooms, sign) {
  const a = Math.sqrt(Math.max(0, 1 - b * b - c * c - d * d));
  const [i, j, k] = [zooms[0], zooms[1], sign * zooms[2]];
  return [
    (a * a + b * b - c * c - d * d) * i, 2 * (b * c - a * d) * j, 2 * (b * d + a * c) * k, x,
    2 * (b * c + a * d) * i, (a * a + c * c - b * b - d * d) * j, 2 * (c * d - a * b) * k, y,
    2 * (b * d - a * c) * i, 2 * (c * d + a * b) * j, (a * a + d * d - b * b - c * c) * k, z,
    0, 0, 0, 1,
  ];
}

// ---- the order of axes

// Return a volume as networks see it, in the order that tinyseg.data.nifti gives: X to the left, Y to the back, Z up.
//
// It is an image as openImage gives it, with `restore(sections)`, which returns one-channel sections, such as labels, in
// the order of the file, as writeNifti takes them. A volume that does not say how the patient lies stays as it is.
function turnVolume(image) {
  const turn = turnOf(image.header.affine);
  const stored = [image.height, image.width, image.count];
  const shape = turn.map(({ axis }) => stored[axis]);
  const [A, B, C] = shape;
  const byPlane = turn[2].axis === 2; // else a section passes through all planes of the file
  let whole = null;
  // Call visit(a, b, x, y, z) for each pixel (a, b) of section c, which is stored at (x, y, z).
  const walk = (c, visit) => {
    const at = [0, 0, 0];
    const place = (i, n) => (at[turn[i].axis] = turn[i].flip ? shape[i] - 1 - n : n);
    place(2, c);
    for (let a = 0; a < A; a++) {
      place(0, a);
      for (let b = 0; b < B; b++) {
        place(1, b);
        visit(a, b, ...at);
      }
    }
  };
  const planes = async (c) => {
    if (byPlane) return { [turn[2].flip ? C - 1 - c : c]: await image.section(turn[2].flip ? C - 1 - c : c) };
    const small = /32$|64$/.test(image.dtype) && image.dtype !== "float32" ? Float64Array : Float32Array;
    whole = whole || [];
    for (let z = whole.length; z < image.count; z++) {
      whole.push((await image.section(z)).map((plane) => small.from(plane)));
    }
    return whole;
  };
  const section = async (c) => {
    const from = await planes(c);
    const out = Array.from({ length: image.channels }, () => new Float64Array(A * B));
    walk(c, (a, b, x, y, z) => {
      for (let i = 0; i < out.length; i++) out[i][a * B + b] = from[z][i][x * stored[1] + y];
    });
    return out;
  };
  const restore = (sections) => {
    const out = Array.from({ length: stored[2] }, () => new sections[0].constructor(stored[0] * stored[1]));
    for (let c = 0; c < C; c++) walk(c, (a, b, x, y, z) => (out[z][x * stored[1] + y] = sections[c][a * B + b]));
    return out;
  };
  return { ...image, height: A, width: B, count: C, section, restore };
}

// Return, for each axis of a volume as networks see it, which axis of the file it is, and whether it runs backwards.
function turnOf(affine) {
  const asStored = [0, 1, 2].map((axis) => ({ axis, flip: false }));
  // Without an affine, or with one that programs write when they know none, nothing is known.
  if (!affine || affine.every((value, i) => value === (i % 5 ? 0 : 1))) return asStored;
  let R = [0, 1, 2].map((j) => {
    const column = [affine[j], affine[4 + j], affine[8 + j]];
    return column.map((value) => value / (Math.hypot(...column) || 1));
  });
  // The rotation that is next to it: the mean of a matrix and its inverse's transpose, until they are equal.
  for (let k = 0; k < 60; k++) {
    const cross = (a, b) => [0, 1, 2].map((i) => a[(i + 1) % 3] * b[(i + 2) % 3] - a[(i + 2) % 3] * b[(i + 1) % 3]);
    const inverse = [cross(R[1], R[2]), cross(R[2], R[0]), cross(R[0], R[1])];
    const volume = R[0].reduce((sum, value, i) => sum + value * inverse[0][i], 0);
    if (!(Math.abs(volume) > 1e-12)) refuse("has axes that lie in one plane, by its header: correct its affine.");
    R = R.map((column, j) => column.map((value, i) => (value + inverse[j][i] / volume) / 2));
  }
  // The axis of the file that points most clearly along one of the patient's takes it, then the next.
  const most = (column) => Math.max(...column.map(Math.abs));
  const order = [0, 1, 2].sort((i, j) => most(R[j]) - most(R[i]));
  const turn = [];
  const taken = new Set();
  for (const axis of order) {
    const free = [0, 1, 2].filter((i) => !taken.has(i));
    const patient = free.reduce((a, b) => (Math.abs(R[axis][b]) > Math.abs(R[axis][a]) ? b : a));
    taken.add(patient);
    turn[patient] = { axis, flip: R[axis][patient] > 0 !== (patient === 2) }; // NIfTI's run right, front, up
  }
  return turn;
}

// ---- writing

// Write a volume in the place of the one with this header, which image.header is: a Blob, gzipped if that one was.
//
// `sections` are arrays of X · Y values as image.section gives them, or arrays of several such, one for each channel.
// The affine and all else in the header are kept; `dtype` is "uint8", "uint16" or "float32".
async function writeNifti(sections, header, { dtype = "uint8" } = {}) {
  const code = { uint8: 2, uint16: 512, float32: 16 }[dtype];
  if (!code) throw new Error(`A volume is written as uint8, uint16 or float32, not as ${dtype}: convert the values.`);
  const planes = sections.map((section) => (ArrayBuffer.isView(section) ? [section] : section));
  const [X, Y, count] = [...header.shape, 1];
  const channels = planes.length ? planes[0].length : 0;
  const size = ARRAYS[dtype].BYTES_PER_ELEMENT;
  if (
    planes.length !== count ||
    planes.some((each) => each.length !== channels || each.some((plane) => plane.length !== X * Y))
  ) {
    throw new Error(
      `A volume of shape (${[X, Y, count].join(", ")}) was given other sections: give each of its sections.`,
    );
  }
  const bytes = new Uint8Array(header.offset + X * Y * count * channels * size);
  const view = new DataView(bytes.buffer);
  bytes.set(header.bytes);
  const { little, second } = header;
  const int = (at1, at2, n) => (second ? view.setBigInt64(at2, BigInt(n), little) : view.setInt16(at1, n, little));
  const float = (at1, at2, n) => (second ? view.setFloat64(at2, n, little) : view.setFloat32(at1, n, little));
  const shape = channels > 1 ? [X, Y, count, channels] : header.shape.length === 2 ? [X, Y] : [X, Y, count];
  [shape.length, ...shape].forEach((n, i) => int(40 + 2 * i, 16 + 8 * i, n));
  for (let i = shape.length + 1; i < 8; i++) int(40 + 2 * i, 16 + 8 * i, 1);
  view.setInt16(second ? 12 : 70, code, little);
  view.setInt16(second ? 14 : 72, 8 * size, little);
  float(112, 176, 1); // the scale
  float(116, 184, 0);
  float(124, 192, 0); // the values shown as white and black
  float(128, 200, 0);
  const put = {
    1: (at, n) => view.setUint8(at, n),
    2: (at, n) => view.setUint16(at, n, little),
    4: (at, n) => view.setFloat32(at, n, little),
  }[size];
  let at = header.offset;
  for (let c = 0; c < channels; c++) {
    for (let k = 0; k < count; k++) {
      for (let y = 0; y < Y; y++) {
        for (let x = 0; x < X; x++, at += size) put(at, planes[k][c][x * Y + y]);
      }
    }
  }
  const packed = header.gzipped ? await deflate(bytes, "gzip") : null;
  return new Blob([packed || bytes], { type: packed ? "application/gzip" : "application/octet-stream" });
}
