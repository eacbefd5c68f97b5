"""What backends write that have a Redis at hand: events into a stream or a channel, with the stock client."""

import json
import sys

import redis

url, verb, name = sys.argv[1:4]
store = redis.Redis.from_url(url)


def body(number):
    if number % 1000 == 499:
        return "{nonsense"
    if number % 500 == 499:
        return json.dumps({"event": "agent_status", "room": "project:redis", "data": {"job_id": "j", "status": "asleep"}})
    return json.dumps({"event": "n", "room": "project:redis", "data": number})


if verb == "stream":
    first, last = int(sys.argv[4]), int(sys.argv[5])
    pipe = store.pipeline(transaction=False)
    for number in range(first, last):
        pipe.xadd(name, {"json": body(number)})
    pipe.execute()
elif verb == "channel":
    for text in sys.argv[4:]:
        store.publish(name, text)
print("done")
