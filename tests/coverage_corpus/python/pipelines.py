"""Functions put together."""

import operator
from functools import partial, reduce

import relight
from anthropic import Anthropic

STEPS = [
    lambda client: client.with_options(timeout=3),
    relight.guarded,
]


def compose(*functions):
    def run(value):
        for function in functions:
            value = function(value)
        return value

    return run


def apply(function, *args, **kwargs):
    return function(*args, **kwargs)  # expect: client unguarded


prepare = compose(lambda client: client.with_options(timeout=3), partial(relight.guarded, policy=None))
one = prepare(Anthropic())  # expect: client guarded
one.messages.create(model="m", max_tokens=1, messages=[])  # expect: call guarded

two = apply(Anthropic, timeout=3)
two.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

create = operator.attrgetter("messages.create")(two)
create(model="m", max_tokens=1, messages=[])  # expect: call unguarded

three = reduce(lambda client, step: step(client), STEPS, Anthropic())  # expect: client unknown
