"""The stock asyncio client of python-socketio, by three transport settings."""

import asyncio

import pytest
import pytest_asyncio
import socketio

from conftest import Server

SETTINGS = {"default": None, "polling only": ["polling"], "websocket only": ["websocket"]}


class Peer:
    """A client whose events are queued by name, with exactly the arguments that came."""

    def __init__(self, setting, **options):
        self.setting = setting
        self.client = socketio.AsyncClient(reconnection_delay=0.05, reconnection_delay_max=0.1, randomization_factor=0, request_timeout=120, **options)
        self.queues = {}
        for namespace in ("/", "/custom", "/guarded"):
            self.client.on("*", self._catch_all, namespace=namespace)
            for name in ("connect", "disconnect", "connect_error"):
                self.client.on(name, self._named(name + namespace), namespace=namespace)

    async def _catch_all(self, name, *args):
        self.queue(name).put_nowait(args)

    def _named(self, name):
        async def handler(*args):
            self.queue(name).put_nowait(args)

        return handler

    def queue(self, name):
        return self.queues.setdefault(name, asyncio.Queue())

    async def connect(self, server, namespaces=("/",), **options):
        await self.client.connect(server.url, transports=SETTINGS[self.setting], namespaces=list(namespaces), wait_timeout=120, **options)
        return self

    async def next(self, name, seconds=120):
        return await asyncio.wait_for(self.queue(name).get(), seconds)

    async def call(self, event, data=None, namespace="/"):
        return await self.client.call(event, data, namespace=namespace, timeout=120)


@pytest_asyncio.fixture(params=list(SETTINGS))
async def peer(request):
    peers = []

    def make(**options):
        peers.append(Peer(request.param, **options))
        return peers[-1]

    yield make
    for one in peers:
        await one.client.disconnect()


async def test_async_connects_with_auth_which_the_server_reads(peer, shared):
    one = await peer().connect(shared(), auth={"token": "x", "n": [1]})
    assert await one.next("auth") == ({"token": "x", "n": [1]},)
    assert (await one.call("handshake"))["auth"] == {"token": "x", "n": [1]}
    assert one.client.transport() == ("polling" if one.setting == "polling only" else "websocket")


async def test_async_is_told_why_a_namespace_refused_it(peer, shared):
    one = peer()
    with pytest.raises(socketio.exceptions.ConnectionError):
        await one.connect(shared(), namespaces=["/guarded"], auth={"token": "wrong"})
    (error,) = await one.next("connect_error/guarded")
    assert error == {"message": "not authorized", "data": {"code": "UNAUTHORIZED", "details": {"need": "token"}}}


async def test_async_is_told_that_a_namespace_does_not_exist(peer, shared):
    with pytest.raises(socketio.exceptions.ConnectionError):
        await peer().connect(shared(), namespaces=["/nowhere"])


async def test_async_sends_and_receives_every_kind_of_value(peer, shared):
    one = await peer().connect(shared())
    for value in [1, -0.5, "two", "🎺 grüße", "a\x1eb", '"\\\x00\n', [], [[[]]], {}, {"a": {"b": [None, True]}}, None, True, "4", "2[1]"]:
        await one.client.emit("message", (value, "end"))
        assert await one.next("message-back") == (value, "end")
    await one.client.emit("message")
    assert await one.next("message-back") == ()


async def test_async_gets_acks_and_gives_them(peer, shared):
    one = peer()
    one.client.on("question", lambda value: (value + 1, "ok"))
    await one.connect(shared())
    assert await one.call("message-with-ack", (1, {"a": ["b"]})) == (1, {"a": ["b"]})
    await one.client.emit("ask-me", ("question", 41))
    assert await one.next("asked") == (42, "ok")


async def test_async_sends_and_receives_binary_in_events_and_acks(peer, shared):
    one = await peer().connect(shared())
    three = (b"\x01\x02\x03", {"deep": [b"\x00\xff\x1e"]}, b"")
    await one.client.emit("message", three)
    assert await one.next("message-back") == three
    assert await one.call("message-with-ack", three) == three
    await one.client.emit("bin", 300)
    assert await one.next("bin") == (bytes(i & 255 for i in range(300)),)


async def test_async_uses_two_namespaces_on_one_connection(peer, shared):
    one = await peer().connect(shared(), namespaces=["/", "/custom"])
    assert await one.call("message-with-ack", "c", namespace="/custom") == "c"
    await one.client.emit("disconnect-me", False, namespace="/custom")
    await one.next("disconnect/custom")
    assert await one.call("message-with-ack", "m") == "m"


async def test_async_a_disconnect_by_the_server_is_final(peer, shared):
    one = await peer().connect(shared())
    await one.client.emit("disconnect-me", True)
    await one.next("disconnect/")
    await asyncio.sleep(0.2)
    assert not one.client.connected


async def test_async_reconnects_with_a_new_id_after_its_connection_was_cut(peer, shared):
    one = await peer().connect(shared())
    await one.next("connect/")
    before = one.client.get_sid("/")
    await one.client.emit("drop-me")
    await one.next("disconnect/")
    await one.next("connect/")
    assert one.client.get_sid("/") != before
    assert await one.call("message-with-ack", "again") == "again"


async def test_async_reconnects_after_the_server_was_killed_and_came_back(peer):
    server = Server()
    one = await peer().connect(server)
    await one.next("connect/")
    server.kill()
    await one.next("disconnect/")
    again = Server(port=server.port)
    try:
        await one.next("connect/")
        assert await one.call("message-with-ack", "again") == "again"
        await one.client.disconnect()
    finally:
        again.stop()


async def test_async_stays_connected_over_several_heartbeats(peer, shared):
    one = await peer().connect(shared(ping_interval=200, ping_timeout=5000))
    await asyncio.sleep(1.3)
    assert await one.call("message-with-ack", 1) == 1
    assert one.queue("disconnect/").empty()


async def test_async_receives_a_thousand_events_in_order(peer, shared, reference_fails):
    one = peer()
    if one.setting == "polling only":
        reference_fails("more than 16 packets in a payload end the session")
    await one.connect(shared())
    await one.client.emit("burst", 1000)
    assert [(await one.next("burst"))[0] for _ in range(1000)] == list(range(1000))


async def test_async_a_compressed_polling_reply_is_understood(peer, shared):
    one = await peer().connect(shared())
    await one.client.emit("text", {"bytes": 20000})
    assert await one.next("text") == ("x" * 20000,)


async def test_async_never_sees_the_argument_that_recovery_adds(peer, shared, reference_fails):
    reference_fails("it adds the offset for every client")
    one = await peer().connect(shared(recovery=5000))
    await one.client.emit("message", "only")
    assert await one.next("message-back") == ("only",)


async def test_async_sees_the_offset_when_it_asks_for_recovery(peer, shared):
    one = await peer().connect(shared(recovery=5000), auth={"recovery": True})
    await one.client.emit("message", "more")
    value, offset = await one.next("message-back")
    assert value == "more" and isinstance(offset, str)


async def test_async_talks_msgpack(peer, shared):
    one = await peer(serializer="msgpack").connect(shared(parser="msgpack"), auth={"token": "x"})
    args = (1, -70000, 0.5, "é🎺", None, [1, [2]], {"a": b"\x01\x02"})
    assert await one.call("message-with-ack", args) == args
