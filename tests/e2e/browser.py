"""A real Chromium without a window, driven by its own protocol over a WebSocket: what a person does with a page."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
START_SECONDS = 60
WAIT_SECONDS = 60
_KEYS = {
    "Enter": 13,
    "Escape": 27,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "End": 35,
    "Home": 36,
}


class Page:
    """One tab. `faults` are the errors that the page has reported, `requests` the URLs that it asked for."""

    def __init__(self, socket):
        self._socket = socket
        self._ids = itertools.count(1)
        self.faults = []
        self.requests = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        """Say something to the browser; return its answer."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_SECONDS))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, event):
        match event:
            case {"method": "Runtime.exceptionThrown", "params": {"exceptionDetails": details}}:
                self.faults.append(details.get("exception", {}).get("description", details["text"]))
            case {"method": "Log.entryAdded", "params": {"entry": {"level": "error", "text": text, **rest}}}:
                self.faults.append(f"{text} {rest.get('url', '')}")
            case {"method": "Network.requestWillBeSent", "params": {"request": {"url": url}}}:
                self.requests.append(url)

    def js(self, expression):
        """The value of a JavaScript expression, a promise's too."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression, seconds=WAIT_SECONDS):
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.js(f"Boolean({expression})"):
            assert time.monotonic() < deadline, f"never: {expression}; {self.faults}"
            time.sleep(0.05)

    def open(self, url):
        """Go to a page that is not this one."""
        self.call("Page.navigate", url="about:blank")
        self.call("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def size(self, width, height, *, phone=False, dark=False):
        """Be a window of this size, on a device of this kind."""
        ratio = 2 if phone else 1
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=ratio, mobile=phone
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def middle(self, selector):
        """Where an element is, scrolled into view."""
        box = f"""(() => {{ const one = {_element(selector)};
            one.scrollIntoView({{block: "nearest"}}); const [box] = one.getClientRects();
            return [box.left + box.width / 2, box.top + box.height / 2]; }})()"""
        return self.js(box)

    def point(self, selector):
        """Move the mouse over an element."""
        x, y = self.middle(selector)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        return x, y

    def click(self, selector):
        """Click on an element with the mouse."""
        x, y = self.point(selector)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, selector, text):
        """Put `text` in the place of what is in a field."""
        self.js(
            f"(() => {{ const one = document.querySelector({json.dumps(selector)}); one.focus(); one.select(); }})()"
        )
        if text:
            self.call("Input.insertText", text=text)
        else:
            self.js("document.execCommand('delete')")

    def choose(self, selector, value):
        """Choose from a list."""
        one = _element(selector)
        self.js(f"{one}.value = {json.dumps(value)}; {one}.dispatchEvent(new Event('change', {{bubbles: true}}))")

    def upload(self, selector, *files):
        """Choose files in a field for them."""
        one = self.call("Runtime.evaluate", expression=_element(selector))["result"]["objectId"]
        self.call("DOM.setFileInputFiles", objectId=one, files=[str(file) for file in files])

    def drop(self, selector, *files):
        """Drag files from outside onto an element, and drop them."""
        x, y = self.middle(selector)
        data = {"items": [], "files": [str(file) for file in files], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key):
        """Press a key and let it go."""
        code = {"windowsVirtualKeyCode": _KEYS.get(key, 0), "key": key, "code": key}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def texts(self, selector):
        """The text of each element that matches."""
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map((one) => one.textContent)")

    def screenshot(self, path):
        """Keep what can be seen."""
        Path(path).write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))


def _element(selector):
    return f"document.querySelector({json.dumps(selector)})"


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """Run Chromium with an empty profile in the folder `profile`; yield its tab."""
    command = [
        *(CHROMIUM, "--headless=new", "--remote-debugging-port=0", f"--user-data-dir={profile}", "--no-sandbox"),
        *("--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-extensions", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync", "about:blank"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with connect(_target(profile, process), max_size=None, ping_interval=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(10)


def _target(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """The address of the browser's tab, once it has one."""
    import httpx2

    deadline = time.monotonic() + START_SECONDS
    port_file = profile / "DevToolsActivePort"
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.is_file() and (lines := port_file.read_text().split()):
            targets = httpx2.get(f"http://127.0.0.1:{lines[0]}/json/list", trust_env=False).json()
            if found := [target for target in targets if target["type"] == "page"]:
                return found[0]["webSocketDebuggerUrl"]
        time.sleep(0.05)
    raise RuntimeError("Chromium did not start")
