"""What the packages that reach Anthropic export, and which of their methods are calls."""

import re
from dataclasses import replace

from relight.engine.coverage.javascript.values import (
    NOTHING,
    Client,
    ClientClass,
    Family,
    Foreign,
    Generate,
    Http,
    Method,
    Package,
    ResourceClass,
    Values,
)

ADDRESS = re.compile(r"(?:^.|//)api\.anthropic\.com(?![\w.-])")
"""Anthropic's host where it is one: at the beginning of a literal, or of an address in it."""
SDK = "@anthropic-ai/sdk"
PROVIDERS = {
    "@anthropic-ai/bedrock-sdk": "AnthropicBedrock",
    "@anthropic-ai/vertex-sdk": "AnthropicVertex",
    "@anthropic-ai/foundry-sdk": "AnthropicFoundry",
}
"""Each exports its client under that name and as its default."""
AI_SDK_PROVIDERS = {
    "@ai-sdk/anthropic": ("anthropic", "createAnthropic"),
    "@ai-sdk/google-vertex/anthropic": ("vertexAnthropic", "createVertexAnthropic"),
}
GENERATING = frozenset({"generateText", "streamText", "generateObject", "streamObject"})
AI_AGENTS = frozenset({"Agent", "Experimental_Agent", "ToolLoopAgent"})
LANGCHAIN = frozenset({"@langchain/anthropic", "langchain/chat_models/anthropic"})
LANGCHAIN_CALLS = frozenset(
    {"invoke", "stream", "batch", "streamEvents", "streamLog", "call", "generate", "generatePrompt", "predict", "run"}
)
AGENT_CALLS = frozenset({"generate", "stream"})
HTTP_PACKAGES = frozenset(
    {
        *("axios", "cross-fetch", "got", "http", "https", "http2", "isomorphic-fetch", "ky", "needle", "node-fetch"),
        *("node:http", "node:https", "ofetch", "phin", "request", "request-promise", "superagent", "undici", "wretch"),
    }
)
HTTP_GLOBALS = frozenset({"fetch", "$fetch", "axios"})
HTTP_METHODS = frozenset({"get", "post", "put", "patch", "delete", "request", "fetch", "stream", "postForm"})
HTTP_MAKERS = frozenset({"create", "extend", "defaults", "instance"})
RESOURCES = frozenset({"messages", "completions", "beta", "models"})
"""Of the SDK's clients; what is called below them goes to the API."""
VERBS = frozenset({"get", "post", "put", "patch", "delete", "getAPIList", "request", "methodRequest"})
METHODS = frozenset({"create", "stream", "parse", "countTokens", "toolRunner"})
"""Functions of the SDK: what is called on one, as a test's mock allows, sends nothing."""
NO_REQUESTS = frozenset({"toString", "valueOf", "hasOwnProperty"})

_URL = re.compile(r"^(?:npm:|jsr:|https?://[^/]+/)?(?:v\d+/)?(@?[^@]+)(?:@[^/]+)?(/.*)?$")


def package_of(specifier: str) -> str:
    """The package's name and the path within it, as a plain import has them: Deno and CDNs write more."""
    found = _URL.match(specifier)
    return specifier if found is None else (found[1] + (found[2] or "")).rstrip("/")


def exported(package: str, name: str) -> Values:
    """What a package exports under a name; `=` is what `require` gives, `*` all of it."""
    package = package_of(package)
    if name in ("*", "="):
        return frozenset({Package(package)})
    if package == SDK or package.startswith(SDK + "/"):
        return _of_sdk(name)
    for provider, client in PROVIDERS.items():
        if (package == provider or package.startswith(provider + "/")) and (
            name == "default" or name.startswith(client)
        ):
            return frozenset({ClientClass(Family.SDK, client if name == "default" else name)})
    if package in AI_SDK_PROVIDERS:
        return _of_ai_sdk(package, name)
    if package == "ai" and name in GENERATING:
        return frozenset({Generate(name)})
    if package in LANGCHAIN and name.startswith("ChatAnthropic"):
        return frozenset({ClientClass(Family.LANGCHAIN, name)})
    if package in HTTP_PACKAGES:
        return frozenset({Http(package.removeprefix("node:") if name == "default" else name)})
    return frozenset({Foreign(package, name)})


def _of_sdk(name: str) -> Values:
    if name in ("default", "Anthropic", "BaseAnthropic"):
        return frozenset({ClientClass(Family.SDK, "Anthropic")})
    if name in ("Messages", "Completions", "Models", "Beta", "Batches"):
        path = ("messages", "batches") if name == "Batches" else (name.lower(),)
        return frozenset({ResourceClass(path)})
    return frozenset({Foreign(SDK, name)})


def _of_ai_sdk(package: str, name: str) -> Values:
    provider, maker = AI_SDK_PROVIDERS[package]
    if name == provider:
        return frozenset({Client(Family.AI_SDK, None)})
    if name == maker:
        return frozenset({ClientClass(Family.AI_SDK, maker)})
    return frozenset({Foreign(package, name)})


def below(client: Client, path: tuple[str, ...], name: str) -> Values:
    """What a property of a client, or of a part of it, is."""
    match client.family:
        case Family.SDK:
            if path or name in RESOURCES or name in VERBS or name == "withOptions" or name.startswith("["):
                return frozenset({Method(client, (*path, name))})
        case Family.AI_SDK | Family.LANGCHAIN | Family.HTTP:
            return frozenset({Method(client, (*path, name))})
    return frozenset({client}) if client.obtained else NOTHING


def is_call(method: Method) -> bool:
    """Whether calling this sends a request."""
    client, path = method.client, method.path
    match client.family:
        case Family.SDK:
            if path[-1] in NO_REQUESTS or path[-1] == "withOptions":
                return False
            if len(path) > 1 and path[-2] in METHODS:
                return False
            return len(path) > 1 or path[0] in VERBS
        case Family.LANGCHAIN:
            return len(path) == 1 and path[0] in LANGCHAIN_CALLS
        case Family.AI_SDK:
            return client.is_model and len(path) == 1 and path[0] in AGENT_CALLS
        case Family.HTTP:
            return path[-1] in HTTP_METHODS or path[-1] in ("create", "parse")


def called(method: Method) -> Values:
    """What calling it returns, as far as that leads to calls again."""
    client, path = method.client, method.path
    match client.family:
        case Family.SDK:
            if path == ("withOptions",) or (client.obtained and len(path) == 1 and path[0] not in VERBS):
                return frozenset({client})
        case Family.LANGCHAIN if not is_call(method):
            return frozenset({client})
        case Family.AI_SDK if not client.is_model:
            return model_of(client)
        case Family.AI_SDK | Family.HTTP if not is_call(method):
            return frozenset({client})
        case _:
            pass
    return NOTHING


def model_of(provider: Client) -> Values:
    """A language model of the AI SDK's provider."""
    return frozenset({replace(provider, is_model=True)})
