"""The page's readers of images in a browser: in a worker made from a Blob, as the page has them."""

import base64
import http.server
import json
import pathlib
import shutil
import subprocess
import tempfile
import threading

import numpy as np
import pytest

from tests.export.page.page_images import TYPES
from tinyseg.export.page.html import FOLDER, READERS

PAGE = """<!doctype html><meta charset="utf-8"><script>
const jobs = %s, code = %s;
const worker = new Worker(URL.createObjectURL(new Blob([code])));
worker.onmessage = ({ data }) => fetch("/answers", { method: "POST", body: JSON.stringify(data) });
worker.onerror = (event) => fetch("/answers", { method: "POST", body: JSON.stringify([{ error: event.message }]) });
worker.postMessage(jobs);
</script>"""
WORKER = """
function base64(array) {
  const bytes = new Uint8Array(array.buffer);
  let text = "";
  for (let i = 0; i < bytes.length; i += 1000) text += String.fromCharCode(...bytes.subarray(i, i + 1000));
  return btoa(text);
}
onmessage = async ({ data }) => {
  const answers = [];
  for (const [name, content] of data) {
    try {
      const file = new File([Uint8Array.from(atob(content), (c) => c.charCodeAt(0))], name);
      const image = await openImage(file, name), planes = [];
      for (let k = 0; k < image.count; k++) planes.push(...(await image.section(k)));
      const { section, header, ...said } = image, options = { width: image.width, height: image.height };
      const written = await writeTiff(planes, { ...options, dtype: "float32" });
      const png = await writePng(planes[0], { ...options, dtype: "uint8" });
      const files = [written, png].map(async (blob) => base64(new Uint8Array(await blob.arrayBuffer())));
      answers.push({ ...said, pixels: planes.map(base64), written: await Promise.all(files) });
    } catch (error) {
      answers.push({ error: error.message });
    }
  }
  postMessage(answers);
};
"""


def command(browser, profile, address):
    """Return the command that opens an address in a browser without a window."""
    if browser == "chromium":
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
        found = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    else:
        options = ["--headless", "--no-remote", "--profile", profile]
        found = shutil.which("firefox-esr") or shutil.which("firefox")
    if found is None:
        pytest.skip(f"{browser} is not installed: the page's readers of images are not tested in it")
    return [found, *options, address]


def read_in_browser(browser, paths, settings="", timeout=100):
    """Read images in a browser, Firefox with settings of its user.js.

    Return what openImage says of each, with `pixels` (S, C, H, W), or {"error"}.
    """
    code = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in READERS) + WORKER
    jobs = [(path.name, base64.b64encode(path.read_bytes()).decode()) for path in paths]
    page = (PAGE % (json.dumps(jobs), json.dumps(code).replace("</", "<\\/"))).encode()
    answered, answers = threading.Event(), []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/" else 404)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page if self.path == "/" else b"")

        def do_POST(self):
            answers.extend(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()
            answered.set()

        def log_message(self, *arguments):
            pass

    with (
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server,
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile,
    ):
        (pathlib.Path(profile) / "user.js").write_text(settings)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command(browser, profile, address), **silent) as process:
            answered.wait(timeout)
            process.terminate()
            process.wait()
        server.shutdown()
    assert answers, f"{browser} gave no answer within {timeout} s"
    for answer in answers:
        if "error" not in answer:
            shape = (answer["count"], answer["channels"], answer["height"], answer["width"])
            values = np.frombuffer(b"".join(map(base64.b64decode, answer["pixels"]))).reshape(shape)
            answer["pixels"] = values.astype(TYPES[answer["dtype"]])
            answer["written"] = list(map(base64.b64decode, answer["written"]))
    return answers
