const ABOUT = JSON.parse(document.getElementById("about").textContent); // what html.py says of the network

// A Web Worker that answers: `call` sends it a task and gives a promise of the result.

class Cancelled extends Error {}

class Helper {
  static standIn = false; // whether workers shall do without Blobs, for a test

  constructor() {
    const source = new Blob([document.getElementById("worker").textContent], { type: "text/javascript" });
    const address = URL.createObjectURL(source);
    this.worker = new Worker(address);
    this.calls = new Map();
    this.count = 0;
    this.image = null; // which it has opened
    this.worker.onmessage = ({ data }) => (data.decode ? this.decode(data) : this.take(data));
    this.worker.onerror = ({ message }) => this.stop(new Error(`The page failed: ${message || "no worker starts"}.`));
  }

  call(task, given = {}, progress = () => {}) {
    if (!this.worker) return Promise.reject(new Cancelled());
    return new Promise((resolve, reject) => {
      this.calls.set(++this.count, { resolve, reject, progress });
      this.worker.postMessage({ id: this.count, task, ...given });
    });
  }

  // Hand over Blobs, or their bytes to a worker that cannot read them.
  async readable(blobs) {
    this.readsBlobs ??= this.call("blobs", { standIn: Helper.standIn });
    return (await this.readsBlobs) ? blobs : Promise.all(blobs.map((blob) => blob.arrayBuffer()));
  }

  // Decode a picture for such a worker.
  async decode({ decode, bytes, type, options }) {
    const bitmap = await createImageBitmap(new Blob([bytes], { type }), options).catch(() => null);
    this.worker?.postMessage({ decoded: decode, bitmap }, bitmap ? [bitmap] : []);
  }

  take({ id, result, error, progress }) {
    const call = this.calls.get(id);
    if (progress) {
      call.progress(...progress);
      return;
    }
    this.calls.delete(id);
    if (error) call.reject(new Error(error));
    else call.resolve(result && result.ofBlob ? new Blob([result.ofBlob], { type: result.type }) : result);
  }

  // End it, whatever it computes; its memory becomes free.
  stop(reason = new Cancelled()) {
    if (this.worker) this.worker.terminate();
    this.worker = null;
    for (const call of this.calls.values()) call.reject(reason);
    this.calls.clear();
  }

  // Make it know the network.
  load() {
    const textOf = (id) => document.getElementById(id).textContent;
    this.loaded ??= this.readable([]).then(() =>
      this.call("load", { about: ABOUT, wasm: textOf("wasm"), weights: textOf("weights") }),
    );
    return this.loaded;
  }

  // files: [{blob, name}]. Gives what the worker has found in them.
  async openFiles(files) {
    const contents = await this.readable(files.map(({ blob }) => blob));
    const given = files.map(({ name }, k) => ({ name, [contents[k] instanceof Blob ? "blob" : "bytes"]: contents[k] }));
    return this.call("open", { files: given, channels: ABOUT.channels, names: ABOUT.names, brain: Boolean(ABOUT.brain) });
  }

  async open(image) {
    if (this.image === image) return;
    await this.openFiles(image.files);
    this.image = image;
  }
}
