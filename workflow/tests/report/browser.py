"""A headless Chromium that is driven over its DevTools protocol, as a reader's hand would.

Chromium speaks JSON over a WebSocket, and the lock has a WebSocket client already (decision
0022): what a page looks like at a phone's width, what its console says and a real mouse click
are one message each. Nothing here knows the report.
"""

import base64
import json
import shutil
import subprocess
import time
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import httpx
from websockets.sync.client import connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WHY_NOT = "needs Chromium (Debian's chromium)"
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
START_S = 60.0  # a cold start on busy cores takes tens of seconds
WAIT_S = 60.0  # for a page that holds megabytes of tables, likewise
POLL_S = 0.1
MAX_MESSAGE_BYTES = 64 * 2**20  # a picture of a page


class Browser:
    """One tab of a running Chromium."""

    def __init__(self, socket):
        self._socket = socket
        self._ids = count(1)
        self.complaints = []  # errors of the console, exceptions, what could not be loaded
        self._contexts = {}  # where scripts run: frame by context
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method, **params):
        """One command and its answer; complaints that arrive meanwhile are kept."""
        number = next(self._ids)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=WAIT_S))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self._note(message)

    def _note(self, message):
        params = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(params["exceptionDetails"])
        if message["method"] == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.complaints.append(params["args"])
        if message["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.complaints.append(params["entry"])
        if message["method"] == "Runtime.executionContextCreated":
            self._contexts[params["context"]["id"]] = params["context"]["auxData"]["frameId"]
        if message["method"] == "Runtime.executionContextDestroyed":
            self._contexts.pop(params["executionContextId"], None)
        if message["method"] == "Runtime.executionContextsCleared":
            self._contexts.clear()

    def resize(self, width, height=1000):
        """What the page sees as its window; below 500 pixels no real window gets."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def open(self, path: Path):
        """Load a file and wait until its scripts have run."""
        self.send("Page.navigate", url=path.as_uri())
        self.wait_for("document.readyState === 'complete'")

    def value(self, expression, *, framed=False):
        """Value of a JavaScript expression, in the page or in the frame inside it."""
        place = {"contextId": self._framed()} if framed else {}
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, **place)
        assert "exceptionDetails" not in answer, (expression, answer["exceptionDetails"])
        return answer["result"].get("value")

    def _framed(self):
        """Context of the frame inside the page; it comes with a message of its own."""
        end = time.monotonic() + WAIT_S
        while True:
            main = self.send("Page.getFrameTree")["frameTree"]["frame"]["id"]
            inner = [number for number, frame in self._contexts.items() if frame != main]
            if inner:
                return inner[-1]
            assert time.monotonic() < end, "the page holds no frame with scripts"
            time.sleep(POLL_S)

    def wait_for(self, expression, *, framed=False):
        """Ask until an expression is true."""
        end = time.monotonic() + WAIT_S
        while not self.value(expression, framed=framed):
            assert time.monotonic() < end, f"after {WAIT_S:.0f} s still not: {expression}"
            time.sleep(POLL_S)

    def click(self, element, *, framed=False):
        """Press the mouse on an element, given as an expression, once it lies still and open."""
        measure = (
            f"(() => {{ const e = {element}; if (!e) return null;"
            " e.scrollIntoView({block: 'center', behavior: 'instant'});"
            " const r = e.getBoundingClientRect(), x = r.x + r.width / 2, y = r.y + r.height / 2;"
            " const top = document.elementFromPoint(x, y);"
            " return top && (e.contains(top) || top.contains(e)) ? [x, y] : null; })()"
        )
        end, before, place = time.monotonic() + WAIT_S, None, None
        while place is None or place != before:
            assert time.monotonic() < end, f"after {WAIT_S:.0f} s nobody can click {element}"
            time.sleep(POLL_S)
            before, place = place, self.value(measure, framed=framed)
        x, y = place
        if framed:
            rectangle = "document.querySelector('iframe').getBoundingClientRect()"
            left, top = self.value(f"[{rectangle}.x, {rectangle}.y]")
            x, y = x + left, y + top
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, words):
        """Type into what has the focus."""
        self.send("Input.insertText", text=words)

    def picture(self, path: Path):
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot")["data"]))


@contextmanager
def chromium(profile: Path):
    """A Chromium of its own with an empty profile; it ends with the block.

    Args:
        profile: folder for the profile; must not exist.
    """
    with subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            port_file, end = profile / "DevToolsActivePort", time.monotonic() + START_S
            while not (port_file.exists() and len(port_file.read_text().split()) == 2):
                assert process.poll() is None, f"Chromium ended with {process.returncode}"
                assert time.monotonic() < end, f"Chromium did not start in {START_S:.0f} s"
                time.sleep(POLL_S)
            port = port_file.read_text().split()[0]
            targets = httpx.get(f"http://127.0.0.1:{port}/json", timeout=WAIT_S).json()
            tab = next(one for one in targets if one["type"] == "page")
            with connect(tab["webSocketDebuggerUrl"], max_size=MAX_MESSAGE_BYTES) as socket:
                yield Browser(socket)
        finally:
            process.terminate()
