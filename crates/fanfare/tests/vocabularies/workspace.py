"""A workspace watched from Python: tokens in each place where they may be, projects, and events of backends."""

import asyncio
import json
import os
import sys
import urllib.request

import socketio

URL = sys.argv[1]
KEY, ANN = os.environ["KEY"], os.environ["ANN"]
# Longer than anything here takes on a busy machine.
PATIENCE = 120


def publish(event, data, room):
    body = json.dumps({"event": event, "data": data, "room": room}).encode()
    request = urllib.request.Request(f"{URL}/api/v1/events", body, {"Authorization": f"Bearer {KEY}"}, method="POST")
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        return json.load(response)["id"]


class Watcher:
    """A stock client that keeps what it hears in the namespace `/ws`."""

    def __init__(self):
        self.client = socketio.AsyncClient(reconnection=False, request_timeout=PATIENCE)
        self.heard = {}
        self.client.on("*", self.hear, namespace="/ws")

    async def hear(self, event, data):
        self.queue(event).put_nowait(data)

    def queue(self, event):
        return self.heard.setdefault(event, asyncio.Queue())

    async def next(self, event):
        return await asyncio.wait_for(self.queue(event).get(), PATIENCE)

    async def connect(self, query="", **options):
        await self.client.connect(f"{URL}{query}", namespaces=["/ws"], wait_timeout=PATIENCE, **options)
        return await self.next("connection_established")

    async def ask(self, command, payload):
        return await self.client.call(command, payload, namespace="/ws", timeout=PATIENCE)


async def a_token_is_taken_from_auth_header_or_query():
    for transport in ("polling", "websocket"):
        for place in (
            {"auth": {"token": ANN}},
            {"headers": {"Authorization": f"Bearer {ANN}"}},
            {"query": f"?token={ANN}"},
        ):
            watcher = Watcher()
            greeting = await watcher.connect(transports=[transport], **place)
            assert greeting["type"] == "connection.established", greeting
            assert (greeting["user_id"], greeting["rooms"]) == ("ann", ["global", "user:ann"]), greeting
            await watcher.client.disconnect()


async def who_has_no_token_is_told_why():
    watcher = Watcher()
    refusals = asyncio.Queue()
    watcher.client.on("connect_error", refusals.put_nowait, namespace="/ws")
    try:
        await watcher.connect(transports=["websocket"])
    except socketio.exceptions.ConnectionError:
        refusal = await asyncio.wait_for(refusals.get(), PATIENCE)
        assert refusal["data"]["code"] == "token_missing", refusal
    else:
        raise AssertionError("it is let in")


async def a_project_is_subscribed_watched_and_left():
    watcher = Watcher()
    await watcher.connect(auth={"token": ANN}, transports=["websocket"])
    refused = await watcher.ask("subscribe", {"room": "project:other"})
    assert (refused["ok"], refused["error"]["code"]) == (False, "forbidden"), refused
    joined = await watcher.ask("subscribe", {"room": "project:shop"})
    assert joined["ok"], joined
    data = {"project_id": "shop", "workflow_id": "wf-1", "progress": 40, "step": "compile"}
    event_id = await asyncio.to_thread(publish, "workflow.progress", data, "project:shop")
    told = await watcher.next("workflow.progress")
    assert (told["data"], told["room"], told["id"]) == (data, "project:shop", event_id), told
    assert told["seq"] == joined["seq"] + 1, (joined, told)
    left = await watcher.ask("unsubscribe", {"room": "project:shop"})
    assert left == {"ok": True, "room": "project:shop"}, left
    await asyncio.to_thread(publish, "workflow.progress", data, "project:shop")
    assert (await watcher.ask("ping", {"sent": 1}))["echo"] == {"sent": 1}
    assert watcher.queue("workflow.progress").empty()
    await watcher.client.disconnect()


async def main():
    for feature in (
        a_token_is_taken_from_auth_header_or_query,
        who_has_no_token_is_told_why,
        a_project_is_subscribed_watched_and_left,
    ):
        await feature()
        print(feature.__name__, flush=True)
    print("done", flush=True)


asyncio.run(main())
