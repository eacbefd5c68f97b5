"""Tasks as Celery's users write them: they know nothing of us."""

import os

from celery import Celery
from celery.exceptions import Reject

app = Celery("tasks", broker=os.environ["BROKER"], backend="cache+memory://")
app.conf.task_send_sent_event = True
app.conf.broker_connection_retry_on_startup = True


@app.task(name="tasks.add")
def add(a, b):
    return a + b


@app.task(name="tasks.fail")
def fail():
    raise ValueError("it cannot be done")


@app.task(name="tasks.flaky", bind=True, max_retries=1, default_retry_delay=0)
def flaky(self):
    if self.request.retries == 0:
        raise self.retry(exc=OSError("busy"))
    return "at last"


@app.task(name="tasks.steps", bind=True)
def steps(self):
    self.send_event("task-progress", current=1, total=4, message="a quarter")
    return "done"


@app.task(name="tasks.reject", bind=True, acks_late=True)
def reject(self):
    raise Reject("not mine", requeue=False)
