"""The benchmark fixture on python-socketio. python server.py PORT; prints "ready" once it listens."""

import sys

import socketio
import uvicorn

sio = socketio.AsyncServer(
    async_mode="asgi",
    cors_allowed_origins="*",
    http_compression=False,
    ping_interval=25,
    ping_timeout=20,
    max_http_buffer_size=1_000_000,
)
sunk = 0


@sio.event
async def join(sid, data):
    await sio.enter_room(sid, data["room"])
    return "ok"


@sio.event
async def pub(sid, data):
    await sio.emit("msg", data["data"], room=data["room"])


@sio.event
async def echo(sid, value):
    return value


@sio.event
async def sink(sid, value):
    global sunk
    sunk += 1


@sio.on("sunk")
async def report_sunk(sid, value):
    return sunk


class Server(uvicorn.Server):
    async def startup(self, sockets=None):
        await super().startup(sockets)
        # Not in the application's start-up hook: that runs before the socket listens.
        print("ready", flush=True)


config = uvicorn.Config(
    socketio.ASGIApp(sio),
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    ws="websockets-sansio",
    ws_per_message_deflate=False,
    backlog=4096,
    access_log=False,
    log_level="warning",
)
Server(config).run()
