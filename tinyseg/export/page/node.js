// Run the network of a page under Node.js, for a check: node node.js page.html image section memory probabilities.bin
//
// The scripts are those of the page's worker; memory is in bytes. Writes float32 (classes, H, W), and prints a JSON
// object with classes, height, width, and tile: its side, or 0 if the image went through the network as a whole.
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const [, , pagePath, imagePath, section, memory, outPath] = process.argv;
const html = fs.readFileSync(pagePath, "utf8");
const textOf = (id) => html.match(new RegExp(`<script [^>]*id="${id}">([^]*?)</script>`))[1];

const waiting = new Map();
globalThis.self = globalThis;
globalThis.postMessage = ({ id, result, error, progress }) => {
  if (progress) return;
  if (error) waiting.get(id).reject(new Error(error));
  else waiting.get(id).resolve(result);
};
vm.runInThisContext(textOf("worker"));

function call(task, given) {
  return new Promise((resolve, reject) => {
    waiting.set(task, { resolve, reject });
    globalThis.onmessage({ data: { id: task, task, ...given } });
  });
}

async function main() {
  const about = JSON.parse(textOf("about"));
  const blob = new Blob([fs.readFileSync(imagePath)]);
  await call("load", { about, wasm: textOf("wasm"), weights: textOf("weights") });
  const { height, width } = await call("open", {
    files: [{ blob, name: path.basename(imagePath) }], channels: about.channels, names: about.names,
    brain: Boolean(about.brain),
  });
  const options = { scale: about.scale, memory: Number(memory) };
  options.statistics = await call("statistics", { scale: about.scale });
  const { probabilities, tile } = await call("predict", { k: Number(section), options });
  fs.writeFileSync(outPath, new Uint8Array(probabilities.buffer));
  console.log(JSON.stringify({ classes: about.classes.length, height, width, tile }));
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
