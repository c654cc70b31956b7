const ABOUT = JSON.parse(document.getElementById("about").textContent); // what html.py says of the network

// A Web Worker that answers: `call` sends it a task and gives a promise of the result.

class Cancelled extends Error {}

class Helper {
  constructor() {
    const source = new Blob([document.getElementById("worker").textContent], { type: "text/javascript" });
    const address = URL.createObjectURL(source);
    this.worker = new Worker(address);
    this.calls = new Map();
    this.count = 0;
    this.image = null; // which it has opened
    this.worker.onmessage = ({ data }) => this.take(data);
    this.worker.onerror = ({ message }) => this.stop(new Error(`The page failed: ${message || "no worker starts"}.`));
  }

  call(task, given = {}, progress = () => {}) {
    if (!this.worker) return Promise.reject(new Cancelled());
    return new Promise((resolve, reject) => {
      this.calls.set(++this.count, { resolve, reject, progress });
      this.worker.postMessage({ id: this.count, task, ...given });
    });
  }

  take({ id, result, error, progress }) {
    const call = this.calls.get(id);
    if (progress) {
      call.progress(...progress);
      return;
    }
    this.calls.delete(id);
    if (error) call.reject(new Error(error));
    else call.resolve(result);
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
    this.loaded ??= this.call("load", {
      about: ABOUT,
      wasm: document.getElementById("wasm").textContent,
      weights: document.getElementById("weights").textContent,
    });
    return this.loaded;
  }

  async open(image) {
    if (this.image === image) return;
    await this.call("open", { files: image.files, channels: ABOUT.channels, names: ABOUT.names });
    this.image = image;
  }
}
