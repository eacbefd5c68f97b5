"""Starts servers under test for the Python clients. Knows the contract's command line (../README.md) and nothing of protocols."""

import json
import os
import pathlib
import shlex
import signal
import subprocess
import threading

import pytest

HERE = pathlib.Path(__file__).resolve().parent
REFERENCE = f"node {HERE.parent / 'reference-server.js'}"
FIXTURE = os.environ.get("FANFARE_FIXTURE") or REFERENCE
IS_REFERENCE = "reference-server.js" in FIXTURE


class Server:
    """One server under test; `options` are the contract's flags, True for a bare one."""

    def __init__(self, port=None, **options):
        # 0: any that is free, which the server then tells.
        command = ["sh", "-c", f'exec {FIXTURE} "$@"', "fixture", "--port", str(port or 0)]
        for name, value in options.items():
            command.append("--" + name.replace("_", "-"))
            if value is not True:
                command.append(str(value))
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        guard = threading.Timer(60, self.process.kill)
        guard.start()
        line = self.process.stdout.readline()
        guard.cancel()
        word, _, bound = line.strip().partition(" ")
        if word != "ready":
            raise RuntimeError(f"no 'ready' from: {shlex.join(command)}")
        self.port = int(bound)
        self.url = f"http://127.0.0.1:{self.port}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()


@pytest.fixture(scope="session")
def shared():
    """One server per distinct set of options, stopped at the end."""
    servers = {}

    def get(**options):
        key = json.dumps(options, sort_keys=True)
        if key not in servers:
            servers[key] = Server(**options)
        return servers[key]

    yield get
    for server in servers.values():
        server.stop()


def pytest_collection_modifyitems(items):
    skips = json.loads((HERE.parent / "skips.json").read_text())
    kind = "reference" if IS_REFERENCE else "fanfare"
    for item in items:
        for skip in skips:
            if skip["suite"] == "python" and skip["test"] == item.name and skip["server"] in ("any", kind):
                item.add_marker(pytest.mark.skip(reason=skip["reason"]))


@pytest.fixture
def reference_fails():
    """Call it with a reason at the top of a test that the Node reference is known to fail."""

    def skip(reason):
        if IS_REFERENCE:
            pytest.skip(f"the reference fails, as known: {reason}")

    return skip
