// Packing and unpacking: zlib, deflate and gzip, and the checksums of files.

const DEFLATE_FACTOR = 1100; // deflate makes of a byte at most 1032

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
