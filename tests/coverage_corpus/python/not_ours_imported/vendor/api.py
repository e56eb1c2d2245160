class Endpoint:
    def create(self, **options):
        return options

    def stream(self, **options):
        return options


class Client:
    messages = Endpoint()


class Anthropic(Client):
    pass
