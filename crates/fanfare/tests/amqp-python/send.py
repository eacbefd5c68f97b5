"""Sends one of each task, and prints their ids."""

import json

from tasks import add, fail, flaky, reject, steps

sent = {
    "add": add.delay(2, 2).id,
    "fail": fail.delay().id,
    "flaky": flaky.delay().id,
    "steps": steps.delay().id,
    "reject": reject.delay().id,
    "late": add.apply_async((1, 1), expires=-1).id,
}
print(json.dumps(sent))
