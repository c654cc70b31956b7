// Runs the page's readers and writers of images under node: `node page_images.js [--without-streams] script.js ...`.
//
// Each line of its input is a job in JSON, {read: path, ...} or {writeTiff | writePng | writeNifti: true, ...}, and is
// answered by a line: what the page would see, or {error}. Pixels go to, and come from, files of float64.

const fs = require("fs");
const path = require("path");
const readline = require("readline");
const vm = require("vm");

// A file as a Blob is one: parts of it are read when they are asked for, which is counted.
class FileBlob {
  constructor(file) {
    this.fd = fs.openSync(file);
    this.size = fs.fstatSync(this.fd).size;
    this.read = 0;
  }

  slice(start, end = this.size) {
    const length = Math.max(0, Math.min(end, this.size) - start);
    return {
      arrayBuffer: async () => {
        const bytes = new Uint8Array(length);
        fs.readSync(this.fd, bytes, 0, length, start);
        this.read += length;
        return bytes.buffer;
      },
    };
  }

  arrayBuffer() {
    return this.slice(0).arrayBuffer();
  }

  stream() {
    this.read += this.size;
    return new Blob([fs.readFileSync(this.fd)]).stream();
  }
}

async function read({ path: file, name, out, sections, turned }) {
  const blob = new FileBlob(file);
  const stored = await openImage(blob, name || path.basename(file));
  const image = turned ? turnVolume(stored) : stored;
  const opened = blob.read;
  const wanted = sections || Array.from({ length: image.count }, (_, k) => k);
  const parts = [];
  for (const k of wanted) {
    const section = await image.section(k);
    if (section.length !== image.channels) throw new TypeError(`a section has ${section.length} channels`);
    for (const plane of section) {
      if (!(plane instanceof Float64Array) || plane.length !== image.height * image.width)
        throw new TypeError("a section");
      if (out) parts.push(Buffer.from(plane.buffer, plane.byteOffset, plane.byteLength));
    }
  }
  if (out) fs.writeFileSync(out, Buffer.concat(parts));
  if (turned) {
    const back = image.restore(await Promise.all(wanted.map(async (k) => (await image.section(k))[0])));
    for (let k = 0; k < stored.count; k++) {
      const [plane] = await stored.section(k);
      if (plane.some((value, i) => value !== back[k][i])) throw new TypeError("restore does not undo turnVolume");
    }
  }
  const { section, header, ...said } = image;
  return { ...said, affine: header && header.affine, opened, read: blob.read };
}

function floats(file) {
  const bytes = fs.readFileSync(file);
  return new Float64Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
}

async function run(job) {
  if (job.read) return read({ ...job, path: job.read });
  const pixels = floats(job.pixels);
  const { width, height, dtype, pixelSize, count } = job;
  const size = width * height;
  const sections = Array.from({ length: pixels.length / size }, (_, k) => pixels.subarray(k * size, (k + 1) * size));
  let blob;
  if (job.writePng) blob = await writePng(pixels, { width, height, dtype, pixelSize });
  if (job.writeTiff) blob = await writeTiff(sections, { width, height, dtype, pixelSize, count });
  if (job.writeNifti) {
    const image = await openImage(new FileBlob(job.like), path.basename(job.like));
    const each = image.count;
    const grouped = sections.length > each ? sections.length / each : 0;
    const groups = Array.from({ length: each }, (_, k) => sections.slice(k * grouped, (k + 1) * grouped));
    blob = await writeNifti(grouped ? groups : sections, image.header, { dtype });
  }
  fs.writeFileSync(job.out, Buffer.from(await blob.arrayBuffer()));
  return { type: blob.type };
}

async function main() {
  if (process.argv.includes("--without-streams"))
    (delete globalThis.DecompressionStream, delete globalThis.CompressionStream);
  for (const file of process.argv.slice(2).filter((word) => word.endsWith(".js"))) {
    vm.runInThisContext(fs.readFileSync(file, "utf8"), { filename: file });
  }
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const start = performance.now();
    const answer = await run(JSON.parse(line)).catch((error) => {
      return { error: error.message, kind: error.constructor.name, cause: error.cause && error.cause.constructor.name };
    });
    const measured = { seconds: (performance.now() - start) / 1000, memory: process.resourceUsage().maxRSS };
    process.stdout.write(JSON.stringify({ ...answer, ...measured }) + "\n");
  }
}

main();
