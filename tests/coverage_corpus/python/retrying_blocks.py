"""Other people's retries."""

import backoff
import relight
import stamina
from anthropic import Anthropic, APIError, RateLimitError
from tenacity import Retrying, stop_after_attempt

client = Anthropic()  # expect: client unguarded


def with_tenacity():
    for attempt in Retrying(stop=stop_after_attempt(3)):
        with attempt:
            return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded


@backoff.on_exception(backoff.expo, RateLimitError)
def with_backoff(*, client=client):
    try:
        return client.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    except APIError as error:
        raise RuntimeError from error


@stamina.retry(on=APIError, attempts=3)
def with_stamina(r):
    return r.guarded(client).messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown


def reset():
    global client
    client = relight.guarded(Anthropic())  # expect: client guarded
