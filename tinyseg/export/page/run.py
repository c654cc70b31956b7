"""Running the network of a segment.html from Python: to check that a page gives what tinyseg gives.

The page's own scripts compute: under Node.js, or in a Chromium without a window, which is spoken to through two pipes.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinyseg.data.files import refuse_missing
from tinyseg.data.writing import FilePath
from tinyseg.export.checking import NotRunError

CHROMIUMS = "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge", "brave-browser"
OLDEST_NODE = 18
PATIENCE = 600  # seconds for one image
# Runs in the page; `Helper` and `ABOUT` are the page's.
CHECK = """
(async () => {
  const bytes = Uint8Array.from(atob("%(image)s"), (letter) => letter.charCodeAt(0));
  const helper = new Helper();
  await helper.load();
  const { height, width } = await helper.openFiles([{ blob: new Blob([bytes]), name: %(name)s }]);
  const options = { scale: ABOUT.scale, memory: %(memory)d };
  options.statistics = await helper.call("statistics", { scale: ABOUT.scale });
  const { probabilities, tile } = await helper.call("predict", { k: %(section)d, options });
  helper.stop();
  const found = new Uint8Array(probabilities.buffer), parts = [];
  for (let at = 0; at < found.length; at += 32768) parts.push(String.fromCharCode(...found.subarray(at, at + 32768)));
  return { classes: ABOUT.classes.length, height, width, tile, probabilities: btoa(parts.join("")) };
})()
"""

# Gives two pipes the numbers 3 and 4, and becomes the browser.
LAUNCHER = """
import os, sys
pipes = [os.dup(int(number)) for number in sys.argv[1:3]]
for number, pipe in enumerate(pipes, 3):
    os.dup2(pipe, number)
    os.set_inheritable(number, True)
os.execv(sys.argv[3], sys.argv[3:])
"""


class NoBrowserError(NotRunError):
    """There is nothing on this computer that a page can run in."""


def run_html(path: FilePath, image_path: FilePath, section: int = 0, memory: float = 2 << 30) -> np.ndarray:
    """Return the probabilities that a page gives for a section of an image.

    Parameters
    ----------
    path : path-like
        A page of `write_html`.
    image_path : path-like
        A PNG, TIFF or NIfTI.
    section : int
        Of a stack, counted from 0.
    memory : float
        Bytes for the network; a section that needs more goes through it in tiles.

    Returns
    -------
    float32 ndarray, shape (classes, H, W)

    Raises
    ------
    FileNotFoundError
        There is no such page or image.
    NoBrowserError
        Neither Node.js nor a Chromium was found.
    RuntimeError
        The page could not compute it; the message is the page's.
    """
    refuse_missing(pathlib.Path(path), "a page of write_html")
    refuse_missing(pathlib.Path(image_path), "an image to segment")
    if node := find_node():
        return run_in_node(node, path, image_path, section, memory)[0]
    if chromium := find_chromium():
        return run_in_chromium(chromium, path, image_path, section, memory)[0]
    raise NoBrowserError(
        f"A page runs in a browser, and neither Node.js {OLDEST_NODE} nor Chromium or Chrome was found: install one of "
        "them (Debian, Ubuntu: apt install nodejs; macOS: brew install node), or open the page yourself."
    )


def find_node() -> str | None:
    """Return the path of a Node.js that has what browsers have had since 2023, or None."""
    node = shutil.which("node")
    if node is None:
        return None
    found = subprocess.run([node, "--version"], capture_output=True, text=True).stdout
    version = re.match(r"v(\d+)\.", found)
    return node if version and int(version[1]) >= OLDEST_NODE else None


def find_chromium() -> str | None:
    """Return the path of a browser of Chromium's family, or None. On Windows none can be spoken to through pipes."""
    if os.name == "nt":
        return None
    places = [shutil.which(name) for name in CHROMIUMS]
    places += [f"/Applications/{name}.app/Contents/MacOS/{name}" for name in ("Google Chrome", "Chromium")]
    return next((place for place in places if place and os.path.exists(place)), None)


def run_in_node(
    node: str, path: FilePath, image_path: FilePath, section: int, memory: float
) -> tuple[np.ndarray, dict[str, int]]:
    """As `run_html`; return the probabilities, and a dict with the side of the tiles ("tile", 0 without)."""
    driver = pathlib.Path(__file__).with_name("node.js")
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "probabilities.bin"
        command = [node, str(driver), str(path), str(image_path), str(section), str(memory), str(out)]
        found = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=PATIENCE)
        if found.returncode:
            raise RuntimeError(f"{path} did not give probabilities for {image_path}: {found.stderr.strip()}")
        about = json.loads(found.stdout)
        p = np.fromfile(out, "<f4")
    return p.reshape(about["classes"], about["height"], about["width"]), about


def run_in_chromium(
    chromium: str, path: FilePath, image_path: FilePath, section: int, memory: float
) -> tuple[np.ndarray, dict[str, int]]:
    """As `run_in_node`."""
    image = pathlib.Path(image_path)
    values = {
        "image": base64.b64encode(image.read_bytes()).decode(), "name": json.dumps(image.name), "section": section,
        "memory": memory,
    }  # fmt: skip
    with open_chromium(chromium) as browser:
        browser.open(pathlib.Path(path).absolute().as_uri())
        found = browser.evaluate(CHECK % values)
    p = np.frombuffer(base64.b64decode(found["probabilities"]), "<f4")
    return p.reshape(found["classes"], found["height"], found["width"]), found


@contextmanager
def open_chromium(chromium: str, *options: str) -> Iterator["Chromium"]:
    """Start a Chromium without a window, with a profile of its own, and end it afterwards."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Chromium(chromium, profile, options)
        try:
            yield browser
        finally:
            browser.close()


class Chromium:
    """A browser that is told what to do in the Chrome DevTools Protocol, JSON texts that end with a zero byte.

    It reads them from its file 3 and answers into its file 4 (--remote-debugging-pipe): no port is opened.
    """

    def __init__(self, chromium: str, profile: str, options: tuple[str, ...] = ()) -> None:
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()
        command = [
            chromium, "--headless=new", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
            "--no-default-browser-check", "--disable-background-networking", "--disable-gpu", *options, "about:blank",
        ]  # fmt: skip
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # without which root cannot run it
        launcher = [sys.executable, "-I", "-S", "-c", LAUNCHER, str(theirs_in), str(theirs_out)]
        self.process = subprocess.Popen(
            launcher + command, pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._rest, self._count, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []
        try:
            self._attach()
        except BaseException:
            self.close()
            raise

    def _attach(self):
        """Speak to the first page from now on."""
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        self.call("Page.enable")
        self.call("Runtime.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result; what the browser tells meanwhile is added to `events`."""
        self._count += 1
        message: dict[str, Any] = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._count:
                break
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"The browser refused {method}: {answer['error'].get('message')}")
        return answer["result"]

    def wait_for(self, event: str) -> dict[str, Any]:
        """Return the parameters of the next event of a name."""
        while True:
            for k, answer in enumerate(self.events):
                if answer.get("method") == event:
                    return self.events.pop(k)["params"]
            self.events.append(self._read())

    def open(self, address: str) -> None:
        """Show a page and wait until it is loaded."""
        self.call("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression of JavaScript in the page; promises are waited for."""
        found = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            about = found["exceptionDetails"]
            said = (about.get("exception") or {}).get("description") or about.get("text")
            raise RuntimeError(f"The page says: {said}")
        return found["result"].get("value")

    def close(self) -> None:
        """End the browser."""
        for file in (self._out, self._in):
            os.close(file)  # on which it ends by itself
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _write(self, content):
        try:
            while content:
                content = content[os.write(self._out, content) :]
        except BrokenPipeError:
            self._refuse_ended()

    def _read(self):
        while b"\0" not in self._rest:
            more = os.read(self._in, 1 << 20)
            if not more:
                self._refuse_ended()
            self._rest += more
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)

    def _refuse_ended(self):
        raise RuntimeError("The browser ended by itself: start it once by hand to see why.")
