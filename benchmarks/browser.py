"""Measure segment.html in Chromium beside onnxruntime-web, which runs the ONNX file of the same network there.

    npm install onnxruntime-web@1.30
    python -m benchmarks.browser --ort node_modules/onnxruntime-web

Both compute in WebAssembly on one thread, in turns, on a machine that does nothing else. The times of the page are
those of a whole section: reading, standardization, network, probabilities, and the way between the page and its worker;
those of onnxruntime-web are of the network alone. "cpu" is what all processes of the browser took together, for a
section (Linux). Written to benchmarks/results/browser.json.
"""

import argparse
import base64
import contextlib
import functools
import http.server
import io
import json
import os
import pathlib
import shutil
import statistics
import tempfile
import threading

import numpy as np
from PIL import Image

import tinyseg as ts
from benchmarks import machine, worker
from tinyseg.data import em_sections
from tinyseg.data.json_files import write_json
from tinyseg.export.describing import describe
from tinyseg.export.onnx.file import write_onnx
from tinyseg.export.page.html import write_html
from tinyseg.export.page.run import find_chromium, open_chromium

FILE = worker.ROOT / "benchmarks" / "results" / "browser.json"
NETWORKS = {"SD-UNet": {}, "SD-UNet, width 16": {"width": 16}}
WARM, ROUNDS = 3, 3  # runs that are not counted, in which the browser compiles; turns
ORT_PAGE = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,">
<script src="ort/dist/ort.wasm.min.js"></script>
<script>
ort.env.wasm.wasmPaths = new URL("ort/dist/", location.href).href;
ort.env.wasm.numThreads = 1;
const session = ort.InferenceSession.create("model.onnx", { executionProviders: ["wasm"] });
async function run(side, pixels, times) {
  const image = new ort.Tensor("float32", new Float32Array(pixels), [1, 1, side, side]), seconds = [];
  for (let k = 0; k < times; k++) {
    const begin = performance.now();
    await (await session).run({ image });
    seconds.push((performance.now() - begin) / 1000);
  }
  return seconds;
}
</script>"""
PAGE_RUN = """
(async () => {
  globalThis.timed ??= new Helper();
  const blob = new Blob([Uint8Array.from(atob("%s"), (letter) => letter.charCodeAt(0))]);
  await timed.load();
  await timed.openFiles([{ blob, name: "image.png" }]);
  const seconds = [];
  for (let k = 0; k < %d; k++) {
    const begin = performance.now();
    await timed.call("predict", { k: 0, options: { scale: ABOUT.scale, memory: 2 ** 31 } });
    seconds.push((performance.now() - begin) / 1000);
  }
  return seconds;
})()
"""


@contextlib.contextmanager
def serving(folder):
    """Serve a folder on this computer, and give its address."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def prepare(folder, options, ort, side):
    """Write the page, the ONNX file and a page that runs it; return the image as PNG in base64, and as pixels."""
    model = ts.models.build("sdunet", **options).eval()
    model.meta = {"preprocessing": {"scale": [1, 1], "standardize": "section"}, "classes": ["inside of a cell"]}
    write_html(folder / "segment.html", model)
    write_onnx(folder / "model.onnx", describe(model))
    (folder / "ort.html").write_text(ORT_PAGE)
    shutil.copytree(ort, folder / "ort", dirs_exist_ok=True)
    image = em_sections(num_sections=1, size=side, seed=0)[0][0]
    png = io.BytesIO()
    Image.fromarray(image).save(png, "PNG")
    x = np.asarray(ts.data.standardize(image[None])[0], np.float32)
    return base64.b64encode(png.getvalue()).decode(), x.reshape(-1).tolist()


def measure(options, ort, side, runs):
    """Return {page: {"seconds": of each run, "cpu": of each turn}} and the browser's version."""
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        png, pixels = prepare(folder, options, ort, side)
        address = stack.enter_context(serving(folder))
        browser = stack.enter_context(open_chromium(find_chromium()))
        version = browser.call("Browser.getVersion")["product"]
        runs_of = {
            "segment.html": lambda count: PAGE_RUN % (png, count),
            "ort.html": lambda count: f"run({side}, {json.dumps(pixels)}, {count})",
        }
        found = {page: {"seconds": [], "cpu": []} for page in runs_of}
        for _ in range(ROUNDS):
            for page, run in runs_of.items():
                browser.open(f"{address}/{page}")
                browser.evaluate(run(WARM))
                begin = cpu_seconds(browser.process.pid)
                found[page]["seconds"] += browser.evaluate(run(runs // ROUNDS))
                found[page]["cpu"].append((cpu_seconds(browser.process.pid) - begin) / (runs // ROUNDS))
    return found, version


def cpu_seconds(pid):
    """Return the processor time, in seconds, of a process and of all that it has started; 0 where there is no /proc."""
    parents, seconds = {}, {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            fields = stat.read_text().rpartition(")")[2].split()
            parents[int(stat.parent.name)] = int(fields[1])
            seconds[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    total = 0
    for each, spent in seconds.items():
        above = each
        while above in parents and above != pid:
            above = parents[above]
        total += spent if above == pid else 0
    return total


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ort", type=pathlib.Path, required=True, metavar="DIR", help="node_modules/onnxruntime-web")
    parser.add_argument("--side", type=int, default=256, help="height and width of the section (default: 256)")
    parser.add_argument("--runs", type=int, default=15, help="of each (default: 15)")
    parser.add_argument("--out", type=pathlib.Path, default=FILE, help="(default: benchmarks/results/browser.json)")
    args = parser.parse_args(arguments)
    if find_chromium() is None:
        parser.error("no Chromium or Chrome was found: install one.")
    worker.warn_if_busy()
    found = {"measured": machine.how_measured("python -m benchmarks.browser --ort node_modules/onnxruntime-web")}
    found["onnxruntime-web"] = json.loads((args.ort / "package.json").read_text())["version"]
    found |= {"side": args.side, "networks": {}}
    for title, options in NETWORKS.items():
        times, found["browser"] = measure(options, args.ort, args.side, args.runs)
        found["networks"][title] = {
            {"ort.html": "onnxruntime-web"}.get(page, page): {
                "least": min(of["seconds"]), "median": statistics.median(of["seconds"]), "cpu": min(of["cpu"]),
                "runs": len(of["seconds"]),
            }
            for page, of in times.items()
        }  # fmt: skip
        print(title, found["networks"][title], flush=True)
    write_json(args.out, found)
    print(f"Written to {args.out}")


if __name__ == "__main__":
    main()
