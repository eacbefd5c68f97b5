"""Sends one of each task once a worker is there, and prints their ids."""

import json

from tasks import add, app, fail, flaky, reject, steps

while not app.control.ping(timeout=1):
    pass

sent = {
    "add": add.delay(2, 2).id,
    "fail": fail.delay().id,
    "flaky": flaky.delay().id,
    "steps": steps.delay().id,
    "reject": reject.delay().id,
    "late": add.apply_async((1, 1), expires=-1).id,
}
print(json.dumps(sent))
