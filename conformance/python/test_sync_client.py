"""The stock synchronous client of python-socketio, by three transport settings."""

import queue
import time

import pytest
import socketio

from conftest import Server

SETTINGS = {"default": None, "polling only": ["polling"], "websocket only": ["websocket"]}


class Peer:
    """A client whose events are queued by name, with exactly the arguments that came."""

    def __init__(self, setting, **options):
        self.setting = setting
        self.client = socketio.Client(reconnection_delay=0.05, reconnection_delay_max=0.1, randomization_factor=0, request_timeout=120, **options)
        self.queues = {}
        for namespace in ("/", "/custom", "/guarded"):
            self.client.on("*", lambda name, *args: self._put(name, args), namespace=namespace)
            for name in ("connect", "disconnect", "connect_error"):
                self.client.on(name, lambda *args, n=name, ns=namespace: self._put(n + ns, args), namespace=namespace)

    def _put(self, name, args):
        self.queues.setdefault(name, queue.Queue()).put(args)

    def connect(self, server, namespaces=("/",), **options):
        self.client.connect(server.url, transports=SETTINGS[self.setting], namespaces=list(namespaces), wait_timeout=120, **options)
        return self

    def next(self, name, seconds=120):
        return self.queues.setdefault(name, queue.Queue()).get(timeout=seconds)

    def call(self, event, data=None, namespace="/"):
        return self.client.call(event, data, namespace=namespace, timeout=120)


@pytest.fixture(params=list(SETTINGS))
def peer(request):
    peers = []

    def make(**options):
        peers.append(Peer(request.param, **options))
        return peers[-1]

    yield make
    for one in peers:
        one.client.disconnect()


def test_connects_with_auth_which_the_server_reads(peer, shared):
    one = peer().connect(shared(), auth={"token": "x", "n": [1]})
    assert one.next("auth") == ({"token": "x", "n": [1]},)
    shake = one.call("handshake")
    assert shake["auth"] == {"token": "x", "n": [1]}
    assert shake["query"]["EIO"] == "4"


def test_ends_on_the_transport_it_was_told_to_use(peer, shared):
    one = peer().connect(shared())
    assert one.client.transport() == ("polling" if one.setting == "polling only" else "websocket")


def test_is_told_why_a_namespace_refused_it(peer, shared):
    one = peer()
    with pytest.raises(socketio.exceptions.ConnectionError):
        one.connect(shared(), namespaces=["/guarded"], auth={"token": "wrong"})
    (error,) = one.next("connect_error/guarded")
    assert error == {"message": "not authorized", "data": {"code": "UNAUTHORIZED", "details": {"need": "token"}}}


def test_gets_into_a_guarded_namespace_with_the_right_token(peer, shared):
    one = peer().connect(shared(), namespaces=["/guarded"], auth={"token": "secret"})
    assert one.call("message-with-ack", 1, namespace="/guarded") == 1


def test_is_told_that_a_namespace_does_not_exist(peer, shared):
    one = peer()
    with pytest.raises(socketio.exceptions.ConnectionError):
        one.connect(shared(), namespaces=["/nowhere"])


@pytest.mark.parametrize("value", [1, -0.5, "two", "🎺 grüße", "a\x1eb", '"\\\x00\n', [], [[[]]], {}, {"a": {"b": [None, True]}}, None, True, "4", "2[1]", 9007199254740991])
def test_sends_and_receives_every_kind_of_value(peer, shared, value):
    one = peer().connect(shared())
    one.client.emit("message", (value, "end"))
    assert one.next("message-back") == (value, "end")


def test_an_event_without_arguments_comes_without_arguments(peer, shared):
    one = peer().connect(shared())
    one.client.emit("message")
    assert one.next("message-back") == ()


def test_gets_acks_and_gives_them(peer, shared):
    one = peer()
    one.client.on("question", lambda value: (value + 1, "ok"))
    one.connect(shared())
    assert one.call("message-with-ack", (1, {"a": ["b"]})) == (1, {"a": ["b"]})
    one.client.emit("ask-me", ("question", 41))
    assert one.next("asked") == (42, "ok")


def test_an_event_nobody_handles_is_acked_with_nothing(peer, shared):
    one = peer().connect(shared())
    one.client.handlers.clear()
    one.client.on("asked", lambda *args: one._put("asked", args))
    one.client.emit("ask-me", ("unhandled", 1))
    assert one.next("asked") == ()


def test_sends_and_receives_binary_in_events_and_acks(peer, shared):
    one = peer().connect(shared())
    three = (b"\x01\x02\x03", {"deep": [b"\x00\xff\x1e"]}, b"")
    one.client.emit("message", three)
    assert one.next("message-back") == three
    assert one.call("message-with-ack", three) == three
    one.client.emit("bin", 300)
    assert one.next("bin") == (bytes(i & 255 for i in range(300)),)


def test_uses_two_namespaces_on_one_connection(peer, shared):
    one = peer().connect(shared(), namespaces=["/", "/custom"])
    assert one.client.get_sid("/") != one.client.get_sid("/custom")
    assert one.call("message-with-ack", "c", namespace="/custom") == "c"
    one.client.emit("disconnect-me", False, namespace="/custom")
    one.next("disconnect/custom")
    assert one.call("message-with-ack", "m") == "m"


def test_a_disconnect_by_the_server_is_final(peer, shared):
    one = peer().connect(shared())
    one.client.emit("disconnect-me", True)
    one.next("disconnect/")
    time.sleep(0.2)
    assert not one.client.connected


def test_its_own_disconnect_is_understood_by_the_server(peer, shared):
    watcher, one = peer().connect(shared()), peer().connect(shared())
    sid = one.client.get_sid("/")
    one.call("message-with-ack", "before")
    # The client says good-bye only if its writing thread has come back from the request before: one that is told to disconnect while
    # that is under way ends without a word.
    time.sleep(0.3)
    one.client.disconnect()
    deadline = time.monotonic() + 3
    while (reason := watcher.call("last-reason", sid)) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert reason in ("client namespace disconnect", "transport close", "transport error")


def test_reconnects_with_a_new_id_after_its_connection_was_cut(peer, shared):
    one = peer().connect(shared())
    one.next("connect/")
    before = one.client.get_sid("/")
    one.client.emit("drop-me")
    one.next("disconnect/")
    one.next("connect/")
    assert one.client.get_sid("/") != before
    assert one.call("message-with-ack", "again") == "again"


def test_reconnects_after_the_server_was_killed_and_came_back(peer):
    server = Server()
    one = peer().connect(server)
    one.next("connect/")
    server.kill()
    one.next("disconnect/")
    again = Server(port=server.port)
    try:
        one.next("connect/")
        assert one.call("message-with-ack", "again") == "again"
    finally:
        one.client.disconnect()
        again.stop()


def test_stays_connected_over_several_heartbeats(peer, shared):
    one = peer().connect(shared(ping_interval=200, ping_timeout=5000))
    time.sleep(1.3)
    assert one.call("message-with-ack", 1) == 1
    assert one.queues.get("disconnect/") is None


def test_receives_a_thousand_events(peer, shared, reference_fails):
    # This client has a thread for each message, so its handlers may begin in another order than the messages came.
    one = peer()
    if one.setting == "polling only":
        reference_fails("more than 16 packets in a payload end the session")
    one.connect(shared())
    one.client.emit("burst", 1000)
    assert sorted(one.next("burst")[0] for _ in range(1000)) == list(range(1000))


def test_a_message_near_the_limit_passes_and_one_above_it_costs_the_connection(peer, shared):
    # Over polling this client notices a refused POST only through the heartbeat, so that is short here.
    one = peer().connect(shared(max_payload=10000, ping_interval=300, ping_timeout=4000))
    one.next("connect/")
    assert one.call("message-with-ack", "x" * 9900) == "x" * 9900
    one.client.emit("message", "x" * 10100)
    one.next("disconnect/")
    one.next("connect/")


def test_a_compressed_polling_reply_is_understood(peer, shared):
    one = peer().connect(shared())
    one.client.emit("text", {"bytes": 20000})
    assert one.next("text") == ("x" * 20000,)


def test_never_sees_the_argument_that_recovery_adds(peer, shared, reference_fails):
    reference_fails("it adds the offset for every client")
    one = peer().connect(shared(recovery=5000))
    one.client.emit("message", "only")
    assert one.next("message-back") == ("only",)
    one.client.emit("bin", 3)
    assert one.next("bin") == (b"\x00\x01\x02",)


def test_sees_the_offset_when_it_asks_for_recovery(peer, shared):
    one = peer().connect(shared(recovery=5000), auth={"recovery": True})
    one.client.emit("message", "more")
    value, offset = one.next("message-back")
    assert value == "more" and isinstance(offset, str)


def test_talks_msgpack(peer, shared):
    one = peer(serializer="msgpack").connect(shared(parser="msgpack"), auth={"token": "x"})
    assert one.next("auth") == ({"token": "x"},)
    args = (1, -70000, 0.5, "é🎺", None, [1, [2]], {"a": b"\x01\x02"})
    assert one.call("message-with-ack", args) == args
    one.client.emit("message", args)
    assert one.next("message-back") == args
