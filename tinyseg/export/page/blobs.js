// Blobs in a worker. WebKit, which is Safari, does not let a worker read any Blob if the page was opened from a file
// (version 2.50: NotReadableError), while the page itself can. There, a class with the bytes in memory stands in for
// them, and the page hands over bytes instead of Blobs.

class BlobInMemory {
  constructor(parts = [], { type = "" } = {}) {
    const arrays = parts.map((part) => {
      if (part instanceof BlobInMemory) return part.bytes;
      if (typeof part === "string") return new TextEncoder().encode(part);
      if (!ArrayBuffer.isView(part)) return new Uint8Array(part);
      return new Uint8Array(part.buffer, part.byteOffset, part.byteLength);
    });
    this.type = type;
    this.bytes = new Uint8Array(arrays.reduce((sum, array) => sum + array.length, 0));
    let at = 0;
    for (const array of arrays) {
      this.bytes.set(array, at);
      at += array.length;
    }
  }

  get size() { return this.bytes.length; }

  slice(begin = 0, end = this.size, type = "") {
    const part = new BlobInMemory([], { type });
    part.bytes = this.bytes.subarray(begin, end);
    return part;
  }

  async arrayBuffer() { return this.bytes.slice().buffer; }

  stream() { return new Response(this.bytes).body; }
}

// Whether this worker reads Blobs; if not, or if it is asked to, it gets the stand-in.
async function prepareBlobs(standIn) {
  const readable = !standIn && (await new Blob(["1"]).arrayBuffer().then(() => true, () => false));
  if (!readable) {
    self.Blob = BlobInMemory;
    self.createImageBitmap = decodeInPage;
  }
  return readable;
}

// ---- pictures that the page decodes for the worker

const decoding = new Map();

function decodeInPage(blob, options) {
  return new Promise((resolve, reject) => {
    const number = decoding.size + 1;
    decoding.set(number, { resolve, reject });
    self.postMessage({ decode: number, bytes: blob.bytes, type: blob.type, options });
  });
}

function takeBitmap({ decoded, bitmap }) {
  const { resolve, reject } = decoding.get(decoded);
  if (bitmap) resolve(bitmap);
  else reject(new Error("it cannot be decoded"));
}
