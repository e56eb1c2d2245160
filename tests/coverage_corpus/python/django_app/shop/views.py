from django.apps import apps
from django.http import JsonResponse
from django.views import View

from .apps import ShopConfig, lazy


def ask(request):
    reply = lazy.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
    return JsonResponse(reply.model_dump())


class Ask(View):
    config: ShopConfig

    def post(self, request):
        reply = self.config.claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unguarded
        return JsonResponse(reply.model_dump())


def by_name(request):
    claude = apps.get_app_config("shop").claude
    return claude.messages.create(model="m", max_tokens=1, messages=[])  # expect: call unknown
