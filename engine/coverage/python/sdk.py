"""What is known of the anthropic SDK and of Relight: names that make clients, calls and guards."""

ANTHROPIC = "anthropic"
RELIGHT = "relight"

PLATFORMS = ("", "Bedrock", "BedrockMantle", "Vertex", "Foundry", "AWS", "GoogleCloud")
CLIENT_CLASSES = frozenset(
    [f"{prefix}Anthropic{platform}" for prefix in ("", "Async") for platform in PLATFORMS] + ["Client", "AsyncClient"]
)

MODEL_METHODS = frozenset({"create", "stream", "parse", "count_tokens", "tool_runner", "thread"})
BATCH_METHODS = frozenset({"create", "retrieve", "list", "cancel", "delete", "results"})
COMPLETION_METHODS = frozenset({"create"})
HTTP_METHODS = frozenset({"post", "request"})
"""Of a client itself: whatever is sent by these."""
SEEN_THROUGH = frozenset({"with_raw_response", "with_streaming_response", "beta"})
"""Parts of a path that do not change what is called."""
DERIVING = frozenset({"with_options", "copy", "with_middleware"})

GUARD_CLASSES = frozenset({"Guard"})
GUARDING_FUNCTIONS = frozenset({"guarded"})
FALLBACK_CLASSES = frozenset({"Fallback"})


def client_class(dotted: str) -> str | None:
    """The class's name if this is one of the SDK's clients, from wherever in the SDK it is imported."""
    package, _, name = dotted.rpartition(".")
    return name if name in CLIENT_CLASSES and _within(package, ANTHROPIC) else None


def is_guard_class(dotted: str) -> bool:
    package, _, name = dotted.rpartition(".")
    return name in GUARD_CLASSES and _within(package, RELIGHT)


def is_fallback_class(dotted: str) -> bool:
    package, _, name = dotted.rpartition(".")
    return name in FALLBACK_CLASSES and _within(package, RELIGHT)


def is_guarding_function(dotted: str) -> bool:
    package, _, name = dotted.rpartition(".")
    return name in GUARDING_FUNCTIONS and _within(package, RELIGHT)


def called(path: tuple[str, ...]) -> str | None:
    """What calling this path of a client calls, as `messages.create`; None if that asks nothing of a model."""
    plain = tuple(part for part in path if part not in SEEN_THROUGH)
    match plain:
        case ("messages", method) if method in MODEL_METHODS - {"thread"}:
            pass
        case ("messages", "batches", method) if method in BATCH_METHODS:
            pass
        case ("messages", "thread", "send" | "stream"):
            pass
        case ("completions", method) if method in COMPLETION_METHODS:
            pass
        case (method,) if method in HTTP_METHODS:
            pass
        case _:
            return None
    return ".".join(part for part in path if part == "beta" or part not in SEEN_THROUGH)


def leads_to_calls(path: tuple[str, ...]) -> bool:
    """Whether more names after this path could make it one that is called."""
    plain = tuple(part for part in path if part not in SEEN_THROUGH)
    return plain in {(), ("messages",), ("messages", "batches"), ("messages", "thread"), ("completions",)}


def _within(package: str, top: str) -> bool:
    return package == top or package.startswith(top + ".")
