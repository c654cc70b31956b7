"""Browsers without a window that tests look at a page with: Chromium and Firefox, by what each speaks itself.

Both have `open(address)`, `evaluate(expression)` (of JavaScript; promises are waited for), `choose(selector, path)` for
a file, `press(key)`, `screenshot()`, `errors()`, and `downloads`, a folder.
"""

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time

import pytest

from tinyseg.export.page.run import Chromium, find_chromium

KEYS = {  # name: virtual key code of Chromium, key of WebDriver
    "Tab": (9, "\ue004"), "Enter": (13, "\ue007"), "Escape": (27, "\ue00c"), " ": (32, " "), "End": (35, "\ue010"),
    "Home": (36, "\ue011"), "ArrowLeft": (37, "\ue012"), "ArrowUp": (38, "\ue013"), "ArrowRight": (39, "\ue014"),
    "ArrowDown": (40, "\ue015"),
}  # fmt: skip


class ChromiumPage(Chromium):
    def __init__(self, folder):
        chromium = find_chromium()
        if chromium is None:
            pytest.skip("no Chromium or Chrome was found")
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        super().__init__(chromium, str(folder / "profile"))
        self.call("Log.enable")
        self.call("Network.enable")
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def open(self, address):
        self.events.clear()
        super().open(address)

    def choose(self, selector, path):
        document = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def press(self, key, shift=False):
        about = {"key": key, "windowsVirtualKeyCode": KEYS[key][0], "modifiers": 8 if shift else 0}
        text = {"text": {"Enter": "\r", " ": " "}[key]} if key in ("Enter", " ") else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", code="Space" if key == " " else key, **about, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", code="Space" if key == " " else key, **about)

    def resize(self, width, height, mobile=False):
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setTouchEmulationEnabled", enabled=mobile)

    def set_media(self, **features):
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=named)

    def screenshot(self):
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def errors(self):
        """What the console has said: errors, warnings, exceptions."""
        names = "Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"
        return [event["params"] for event in self.events if event["method"] in names]

    def requests(self):
        """Addresses that the page has asked for, since it was opened."""
        sent = [event["params"] for event in self.events if event["method"] == "Network.requestWillBeSent"]
        return [about["request"]["url"] for about in sent]


class FirefoxPage:
    """Firefox, by Marionette: messages "length:JSON" over a port of this computer."""

    def __init__(self, folder):
        firefox = shutil.which("firefox-esr") or shutil.which("firefox")
        if firefox is None:
            pytest.skip("no Firefox was found")
        self.downloads, profile = folder / "downloads", folder / "profile"
        self.downloads.mkdir()
        profile.mkdir()
        settings = {
            "marionette.port": 0, "browser.download.folderList": 2, "browser.download.dir": str(self.downloads),
            "browser.download.always_ask_before_handling_new_types": False, "app.update.enabled": False,
            "browser.shell.checkDefaultBrowser": False, "network.captive-portal-service.enabled": False,
            "datareporting.policy.dataSubmissionEnabled": False,
        }  # fmt: skip
        lines = (f'user_pref("{name}", {json.dumps(value)});\n' for name, value in settings.items())
        (profile / "user.js").write_text("".join(lines))
        command = [firefox, "--headless", "--marionette", "--no-remote", "--profile", str(profile)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._count, self._rest = 0, b""
        self._socket = self._connect(profile / "MarionetteActivePort")
        self._read()  # what it is
        self.call("WebDriver:NewSession", capabilities={"alwaysMatch": {"acceptInsecureCerts": True}})
        self.call("WebDriver:SetTimeouts", script=300000, pageLoad=60000)

    def _connect(self, file):
        for _ in range(600):
            if file.exists() and file.read_text():
                return socket.create_connection(("127.0.0.1", int(file.read_text())), timeout=310)
            time.sleep(0.1)
        self._process.kill()
        self._process.wait()
        pytest.skip("this Firefox cannot be driven: it opened no port within a minute")

    def call(self, name, **parameters):
        self._count += 1
        content = json.dumps([0, self._count, name, parameters]).encode()
        self._socket.sendall(str(len(content)).encode() + b":" + content)
        _, _, error, result = self._read()
        if error:
            raise RuntimeError(f"{name}: {error['message']}")
        return result

    def _read(self):
        while b":" not in self._rest:
            self._rest += self._socket.recv(1 << 16)
        length, _, self._rest = self._rest.partition(b":")
        while len(self._rest) < int(length):
            self._rest += self._socket.recv(1 << 20)
        text, self._rest = self._rest[: int(length)], self._rest[int(length) :]
        return json.loads(text)

    def open(self, address):
        self.call("WebDriver:Navigate", url=address)

    def evaluate(self, expression):
        # Global constants of the page's scripts are not seen from here.
        script = (
            f"const done = arguments[arguments.length - 1]; (async () => [await ({expression})])()"
            ".then(([value]) => done([JSON.stringify(value)]), (error) => done(['', String(error)]));"
        )
        found = self.call("WebDriver:ExecuteAsyncScript", script=script, args=[])["value"]
        if len(found) > 1:
            raise RuntimeError(f"The page says: {found[1]}")
        return json.loads(found[0]) if found[0] is not None else None

    def choose(self, selector, path):
        found = self.call("WebDriver:FindElement", using="css selector", value=selector)["value"]
        self.call("WebDriver:ElementSendKeys", id=next(iter(found.values())), text=str(path))

    def press(self, key, shift=False):
        value = KEYS[key][1]
        keys = [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        if shift:
            keys = [{"type": "keyDown", "value": "\ue008"}, *keys, {"type": "keyUp", "value": "\ue008"}]
        self.call("WebDriver:PerformActions", actions=[{"type": "key", "id": "keyboard", "actions": keys}])

    def resize(self, width, height, mobile=False):
        self.call("WebDriver:SetWindowRect", width=width, height=height)

    def screenshot(self):
        return base64.b64decode(self.call("WebDriver:TakeScreenshot", full=False)["value"])

    def errors(self):
        return []  # its console is not heard

    def close(self):
        with contextlib.suppress(OSError, RuntimeError, ValueError):
            self.call("Marionette:Quit", flags=["eForceQuit"])
        self._socket.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
