from anthropic import Anthropic
from django.apps import AppConfig
from django.utils.functional import SimpleLazyObject


class ShopConfig(AppConfig):
    name = "shop"

    def ready(self):
        self.claude = Anthropic()  # expect: client unguarded


lazy = SimpleLazyObject(lambda: Anthropic())  # expect: client unguarded
