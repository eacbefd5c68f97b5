"""What the tests do at a broker, with stock pika and aio-pika. Prints what it was asked for, and nothing else.

broker.py URL publish FIRST LAST     numbered events to the queue, every 500th of them poison, confirmed
broker.py URL aio COUNT              the same from aio-pika, as one array
broker.py URL same COUNT             events that are the same to the last byte, without ids
broker.py URL raw QUEUE              bodies that are not written for us
broker.py URL count QUEUE            messages that nobody has taken
broker.py URL take QUEUE             all messages, a JSON object on each line
broker.py URL reply QUEUE COUNT      answers requests as a tool does
"""

import asyncio
import json
import sys

import aio_pika
import pika

QUEUE = "fanfare.events"
ROOM = "project:queue"


def event(number):
    return {"event": "n", "room": ROOM, "data": number}


def publish(channel, first, last):
    channel.confirm_delivery()
    for number in range(int(first), int(last)):
        body, poison = json.dumps(event(number)), number % 500 == 499
        # Most have an id; some are known by what they say, and some by the key that is in their body.
        properties = pika.BasicProperties(delivery_mode=2)
        if poison:
            body = body[:-1] if number % 1000 == 499 else json.dumps({"event": "agent_status", "data": {"job_id": 1}})
        elif number % 10 == 7:
            body = json.dumps({**event(number), "idempotency_key": f"key-{number}"})
        elif number % 10 != 3:
            properties.message_id = f"message-{number}"
        channel.basic_publish("", QUEUE, body, properties, mandatory=True)


def same(channel, count):
    channel.confirm_delivery()
    for _ in range(int(count)):
        channel.basic_publish("", QUEUE, json.dumps({"event": "tick", "room": ROOM}), mandatory=True)


def raw(channel, queue):
    channel.confirm_delivery()
    headers = {"project": "acme", "attempt": 2}
    properties = pika.BasicProperties(headers=headers, type="built", message_id="raw-1")
    channel.basic_publish("ci", "build.web", b'[1, {"any": "json"}]', properties, mandatory=True)
    properties = pika.BasicProperties(type="built", message_id="raw-2")
    channel.basic_publish("ci", "build.web", b'{"no": "project"}', properties, mandatory=True)
    properties = pika.BasicProperties(headers={"project": "other"}, type="built", message_id="raw-3")
    channel.basic_publish("ci", "build.web", b"{}", properties, mandatory=True)


def count(channel, queue):
    print(channel.queue_declare(queue, passive=True).method.message_count)


def take(channel, queue):
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            break
        message = {"headers": properties.headers, "body": body.decode(), "message_id": properties.message_id}
        print(json.dumps(message))


def reply(channel, queue, count):
    channel.queue_declare(queue, durable=True)
    print("ready", flush=True)
    for method, properties, body in channel.consume(queue):
        request = json.loads(body)
        answers = {
            "whole": [{"message": "the sky is blue", "usage": {"total_tokens": 4}}],
            "stream": [{"progress": 10}, {"delta": "the sky "}, {"delta": "is blue"}, {"done": True}],
            "fail": [{"error": "no such sky"}],
        }[request["message"]]
        for answer in answers:
            to = pika.BasicProperties(correlation_id=properties.correlation_id)
            channel.basic_publish("", properties.reply_to, json.dumps(answer), to)
        # Whoever is not waited for is not heard.
        stray = pika.BasicProperties(correlation_id="0" * 32)
        channel.basic_publish("", properties.reply_to, b'{"delta": "stray"}', stray)
        channel.basic_ack(method.delivery_tag)
        if method.delivery_tag == int(count):
            break


async def aio(url, count):
    connection = await aio_pika.connect_robust(url)
    async with connection:
        channel = await connection.channel()
        body = json.dumps([event(number) for number in range(int(count))]).encode()
        message = aio_pika.Message(body, message_id="aio", content_type="application/json")
        exchange = await channel.get_exchange("fanfare")
        await exchange.publish(message, routing_key="any.key")


def main(url, command, *arguments):
    if command == "aio":
        asyncio.run(aio(url, *arguments))
        return
    connection = pika.BlockingConnection(pika.URLParameters(url))
    commands = {"publish": publish, "same": same, "raw": raw, "count": count, "take": take, "reply": reply}
    commands[command](connection.channel(), *arguments)
    connection.close()


main(*sys.argv[1:])
