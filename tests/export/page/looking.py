"""Looking at a page in a browser of `browsers`: waiting, pressing, reading what it says, saving."""

import contextlib
import functools
import http.server
import re
import threading
import time

import numpy as np


@contextlib.contextmanager
def serving(folder):
    """Serve a folder on this computer; give (address, list of what was asked for)."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            asked.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def until(browser, condition, seconds=60):
    """Wait until a condition in JavaScript holds."""
    end = time.monotonic() + seconds
    while not browser.evaluate(condition):
        assert time.monotonic() < end, f"{condition} did not come true: {browser.evaluate('document.body.innerText')}"
        time.sleep(0.05)


def text(browser, selector):
    return browser.evaluate(f"document.querySelector({selector!r}).textContent")


def click(browser, selector):
    browser.evaluate(f"document.querySelector({selector!r}).click()")


def says(browser, pattern, selector="#status"):
    until(browser, f"/{pattern}/.test(document.querySelector({selector!r}).textContent)")


def show(browser, address):
    browser.open(address)
    says(browser, "The network is ready")


def move(browser, selector, value):
    """Set a slider or a field, as a person does: with the events of both."""
    browser.evaluate(
        f"((e) => {{ e.value = {value}; for (const kind of ['input', 'change']) e.dispatchEvent(new Event(kind, "
        f"{{ bubbles: true }})); }})(document.querySelector({selector!r}))"
    )


def saved(browser, selector, name):
    """Click on a button, and return the path of the file that it saves."""
    click(browser, selector)
    says(browser, f"Saved {re.escape(name)}")
    path = browser.downloads / name
    for _ in range(100):
        if path.exists() and path.stat().st_size:
            return path
        time.sleep(0.05)
    raise AssertionError(f"{name} was not saved, but {[file.name for file in browser.downloads.iterdir()]}")


def share(mask):
    return f"{100 * mask.mean():.2f} %"


def shares(browser):
    """What the table says: a list of columns for each class."""
    columns = "[...row.querySelectorAll('td')].map((cell) => cell.textContent)"
    return browser.evaluate(f"[...document.querySelectorAll('#shares tr')].map((row) => {columns})")


def canvas(browser):
    """The pixels on the screen, uint8 (H, W, 3)."""
    script = (
        "(() => { const c = document.querySelector('#canvas'), { width: w, height: h } = c;"
        "return [h, w, ...c.getContext('2d').getImageData(0, 0, w, h).data]; })()"
    )
    height, width, *values = browser.evaluate(script)
    return np.array(values, np.uint8).reshape(height, width, 4)[..., :3]


def drop_files(browser, paths):
    """Drop files onto the page."""
    files = ", ".join(f"new File([new Uint8Array({list(path.read_bytes())})], '{path.name}')" for path in paths)
    browser.evaluate(
        f"(() => {{ const data = new DataTransfer(); for (const file of [{files}]) data.items.add(file); "
        "window.dispatchEvent(new DragEvent('drop', { dataTransfer: data })); })()"
    )
