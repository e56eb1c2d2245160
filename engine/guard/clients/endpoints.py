"""What a request's path and body ask for."""

import re
from functools import lru_cache

CHAT = "chat"
_WORD = re.compile(r"[a-z_]+")


@lru_cache(maxsize=1_024)
def operation(method: str, path: str) -> str:
    """`chat` for a message, else the last word of the path that is no id, as `count_tokens` or `batches`."""
    words = [word for word in path.partition("?")[0].split("/") if _WORD.fullmatch(word)]
    if not words:
        return method.lower()
    return CHAT if words[-1] == "messages" and method.lower() == "post" else words[-1]


def model_of(body: object) -> str:
    """The model that a request names; `-` where it names none."""
    model = body.get("model") if isinstance(body, dict) else None
    return model if isinstance(model, str) and model else "-"
