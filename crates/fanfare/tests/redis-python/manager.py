"""python-socketio over Redis: a process that only writes, and a server, beside ours."""

import json
import os
import sys
import threading
import time
import urllib.request
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import socketio

redis_url, url = sys.argv[1:]
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


# Longer than anything here takes on a busy machine.
PATIENCE = 120


class Watcher:
    """A client that remembers what it gets."""

    def __init__(self, url, namespace="/"):
        self.client = socketio.Client(reconnection=False, request_timeout=PATIENCE)
        self.all = []
        self.arrived = threading.Condition()
        self.client.on("*", self.catch, namespace=namespace)
        self.client.connect(url, namespaces=[namespace], transports=["polling"], wait_timeout=PATIENCE)
        self.sid = self.client.get_sid(namespace)

    def catch(self, event, *data):
        with self.arrived:
            self.all.append((event, data))
            self.arrived.notify_all()

    def find(self, name):
        return [data for event, data in self.all if event == name]

    def wait_for(self, name, count=1):
        with self.arrived:
            found = self.arrived.wait_for(lambda: len(self.find(name)) >= count, timeout=PATIENCE)
            assert found, f"{name} never came: {self.all}"
            return self.find(name)[count - 1]


def get(path):
    with opener.open(url + path) as response:
        return json.load(response)


def until(what, holds):
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.05)


one, two, other = Watcher(url), Watcher(url), Watcher(url, "/ws")
assert one.client.call("subscribe", {"room": "blue"}, timeout=PATIENCE)["ok"]

# A process that only writes.
writer = socketio.RedisManager(redis_url, write_only=True)
writer.emit("all", {"a": [None, "ü"]}, namespace="/")
writer.emit("several", (1, "two"), namespace="/")
writer.emit("list", [1, 2], namespace="/")
writer.emit("nothing", None, namespace="/")
writer.emit("binary", {"b": b"\x01\x02"}, namespace="/", room="blue")
writer.emit("rooms", 1, namespace="/", room=["blue", two.sid])
writer.emit("not you", 1, namespace="/", skip_sid=one.sid)
writer.emit("elsewhere", 1, namespace="/ws")
writer.emit("end", 1, namespace="/")
one.wait_for("end")
assert one.wait_for("all") == ({"a": [None, "ü"]},), one.all
assert one.wait_for("several") == (1, "two"), one.all
assert one.wait_for("list") == ([1, 2],), one.all
assert one.wait_for("nothing") == (), one.all
assert one.wait_for("binary") == ({"b": b"\x01\x02"},), one.all
two.wait_for("end")
two.wait_for("rooms")
two.wait_for("not you")
other.wait_for("elsewhere")
assert not one.find("not you") and not two.find("binary"), (one.all, two.all)

# Rooms.
writer.enter_room(two.sid, "/", "green")
writer.emit("green", 1, namespace="/", room="green")
two.wait_for("green")
writer.close_room("green", "/")
writer.emit("not any more", 1, namespace="/", room="green")
writer.emit("last", 1, namespace="/")
two.wait_for("last")
assert not two.find("not any more")


class Threads(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Quiet(WSGIRequestHandler):
    def log_message(self, *_):
        pass


# A server of its own, beside ours.
server = socketio.Server(client_manager=socketio.RedisManager(redis_url), async_mode="threading")
answers = []


@server.event
def connect(sid, environ):
    server.enter_room(sid, "blue")


listener = make_server("127.0.0.1", 0, socketio.WSGIApp(server), Threads, Quiet)
threading.Thread(target=listener.serve_forever, daemon=True).start()
theirs = Watcher(f"http://127.0.0.1:{listener.server_port}")
until("it is counted", lambda: get("/stats")["adapter"]["others"]["python"] == 1)
server.emit("from theirs", 5, room="blue")
assert one.wait_for("from theirs") == (5,)
theirs.wait_for("from theirs")
event = {"event": "n", "room": "blue", "data": {"some": ["thing"]}}
request = urllib.request.Request(f"{url}/api/v1/events", json.dumps(event).encode(), method="POST")
with opener.open(request) as response:
    assert response.status == 201
assert theirs.wait_for("n") == one.wait_for("n")

# An ack of our socket, which their server awaits.
one.client.on("question", lambda number: number + 1)
server.emit("question", 41, to=one.sid, callback=lambda *args: answers.append(args))
until("the answer comes", lambda: answers == [(42,)])
server.disconnect(two.sid)
until("it is gone", lambda: not two.client.connected)
assert len(one.find("n")) == 1 and len(theirs.find("n")) == 1
print("done", flush=True)
os._exit(0)
