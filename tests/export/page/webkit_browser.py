"""WebKitGTK, the engine of Safari, for `browsers`: by WebDriver, on a screen that is not there (Xvfb)."""

import base64
import json
import os
import pathlib
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request

import pytest

from tests.export.page.browsers import KEYS

BROWSER = next(pathlib.Path("/usr").glob("lib/*/webkit2gtk-4.1/MiniBrowser"), None)


class WebKitPage:
    def __init__(self, folder):
        if not (BROWSER and shutil.which("WebKitWebDriver") and shutil.which("Xvfb")):
            pytest.skip("no WebKit was found (Debian: webkit2gtk-driver and xvfb)")
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        (folder / "user-dirs.dirs").write_text(f'XDG_DOWNLOAD_DIR="{self.downloads}"\n')
        self._processes = []
        display = self._start(["Xvfb", "-displayfd", "1", "-screen", "0", "1280x900x24"]).stdout.readline()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        settings = {
            "DISPLAY": f":{display.decode().strip()}", "GDK_BACKEND": "x11", "XDG_CONFIG_HOME": str(folder),
            "WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS": "1", "WEBKIT_DISABLE_COMPOSITING_MODE": "1",
        }  # fmt: skip
        self._start(["WebKitWebDriver", "--host=127.0.0.1", f"--port={port}"], os.environ | settings)
        self._address = f"http://127.0.0.1:{port}/session"
        options = {"binary": str(BROWSER), "args": ["--automation"]}
        capabilities = {"capabilities": {"alwaysMatch": {"webkitgtk:browserOptions": options}}}
        for _ in range(100):
            try:
                session = self._ask("POST", "", capabilities)
                break
            except urllib.error.URLError:  # the driver starts
                time.sleep(0.1)
        else:
            self.close()
            pytest.skip("this WebKit cannot be driven: its driver opened no port")
        self._address += f"/{session['sessionId']}"
        self._ask("POST", "/timeouts", {"script": 300000})

    def _start(self, command, environment=None):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self._processes.append(process)
        return process

    def _ask(self, method, path, body=None):
        content = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._address + path, content, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=310) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            with error:
                raise RuntimeError(f"{path}: {error.read().decode()[:500]}") from None

    def open(self, address):
        self._ask("POST", "/url", {"url": address})

    def evaluate(self, expression):
        script = (
            f"const done = arguments[arguments.length - 1]; (async () => [await ({expression})])()"
            ".then(([value]) => done([JSON.stringify(value)]), (error) => done(['', String(error)]));"
        )
        found = self._ask("POST", "/execute/async", {"script": script, "args": []})
        if len(found) > 1:
            raise RuntimeError(f"The page says: {found[1]}")
        return json.loads(found[0]) if found[0] is not None else None

    def choose(self, selector, path):
        found = self._ask("POST", "/element", {"using": "css selector", "value": selector})
        self._ask("POST", f"/element/{next(iter(found.values()))}/value", {"text": str(path)})

    def press(self, key, shift=False):
        value = KEYS[key][1]
        keys = [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        self._ask("POST", "/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": keys}]})

    def screenshot(self):
        return base64.b64decode(self._ask("GET", "/screenshot"))

    def errors(self):
        return []  # its console is not heard

    def close(self):
        for process in reversed(self._processes):
            process.terminate()
            process.wait(10)
            process.stdout.close()
