"""Classes of one's own that are called like the SDK's."""


class Messages:
    def create(self, **options):
        return options


class Anthropic:
    """Not theirs."""

    def __init__(self):
        self.messages = Messages()

    def guarded(self):
        return self


class AsyncAnthropic(Anthropic):
    pass


client = Anthropic()
client.messages.create(model="m", max_tokens=1, messages=[])
AsyncAnthropic().messages.create(model="m", max_tokens=1, messages=[])


def ask(anthropic):
    return anthropic.Anthropic().price()


class Store:
    def __init__(self):
        self.messages = []

    def create(self, message):
        self.messages.append(message)
