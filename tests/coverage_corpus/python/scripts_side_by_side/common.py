from anthropic import Anthropic


def get_client(safe=False):
    client = Anthropic()  # expect: client unguarded
    if not safe:
        return client
    import relight

    return relight.guarded(client)
