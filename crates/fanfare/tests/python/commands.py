"""What users of python-socketio write: join a room, ping, watch what is published."""

import json
import os
import sys
import threading
import urllib.request

import socketio

url, transport = sys.argv[1:]


def publish(event):
    request = urllib.request.Request(f"{url}/api/v1/events", json.dumps(event).encode(), method="POST")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request) as response:
        assert response.status == 201
        return json.load(response)["id"]


# Longer than anything here takes on a busy machine.
PATIENCE = 120

client = socketio.Client(reconnection=False, request_timeout=PATIENCE)
seen = {}
arrived = threading.Condition()


@client.on("*")
def catch(event, data):
    # One argument only: no recovery offset comes behind it.
    with arrived:
        seen[event] = data
        arrived.notify_all()


def wait_for(event):
    with arrived:
        assert arrived.wait_for(lambda: event in seen, timeout=PATIENCE), f"{event} never came: {seen}"
        return seen.pop(event)


client.connect(url, transports=[transport], wait_timeout=PATIENCE)
greeting = wait_for("connection_established")
assert greeting["connection_id"] == client.get_sid(), greeting
assert greeting["rooms"] == ["dashboard", "global"], greeting

client.emit("join_room", {"room": "tasks"})
assert wait_for("room_joined") == {"room": "tasks"}
answer = client.call("ping", {"sent": 1}, timeout=PATIENCE)
assert answer["ok"] and answer["echo"] == {"sent": 1}, answer
assert wait_for("pong")["echo"] == {"sent": 1}

data = {"task_id": "task-456", "status": "completed", "data": {"result": "success"}}
event_id = publish({"event": "task_update", "data": data, "room": "tasks"})
wrapped = wait_for("task_update")
assert wrapped["data"] == data and wrapped["id"] == event_id and wrapped["room"] == "tasks", wrapped

client.emit("leave_room", {"no": "room"})
assert wait_for("error")["code"] == "bad_payload"
assert client.call("subscribe", {"room": ""}, timeout=PATIENCE)["error"]["code"] == "bad_room_name"
print("done", flush=True)
# Without a goodbye: when a POST has not returned yet, `disconnect()` of python-engineio 4.15.1 drops its close packet, and
# then waits for the next ping.
os._exit(0)
