"""Other libraries that call models of Anthropic's, and so go past every Guard."""

import re
from dataclasses import dataclass

NAMES_A_MODEL = re.compile(r"claude|anthropic", re.IGNORECASE)
HOST = "api.anthropic.com"
HTTP_VERBS = frozenset({"post", "request", "stream", "urlopen", "send", "fetch", "put", "urlretrieve"})
HTTP_CLIENTS = frozenset(
    {
        *("httpx.Client", "httpx.AsyncClient", "httpx2.Client", "httpx2.AsyncClient", "aiohttp.ClientSession"),
        *("http.client.HTTPSConnection", "requests.Session", "requests.session", "urllib3.connectionpool_from_url"),
        *("urllib3.HTTPSConnectionPool", "niquests.Session", "niquests.AsyncSession"),
    }
)
LANGCHAIN = frozenset(
    {
        *("invoke", "ainvoke", "stream", "astream", "batch", "abatch", "generate", "agenerate", "predict", "apredict"),
        *("call_as_llm", "__call__", "astream_events", "generate_prompt", "agenerate_prompt", "batch_as_completed"),
    }
)
LLAMA_INDEX = frozenset(
    f"{prefix}{name}"
    for prefix in ("", "a")
    for name in ("complete", "chat", "stream_complete", "stream_chat", "predict", "structured_predict")
)
BEDROCK = frozenset({"invoke_model", "invoke_model_with_response_stream", "converse", "converse_stream"})


@dataclass(frozen=True, slots=True)
class OtherSdk:
    """A class or function. `methods` of what it gives call a model; none: it is called itself.

    `named_by`: the argument that names the model, by keyword and position; only models of Anthropic's count.
    """

    methods: frozenset[str] = frozenset()
    named_by: tuple[str, int] | None = None
    takes_client: tuple[str, ...] = ()
    """Keywords under which it may be given a client of the SDK's, which then decides."""


OTHER_SDKS: dict[str, OtherSdk] = {
    **{
        f"langchain_anthropic.{name}": OtherSdk(LANGCHAIN)
        for name in ("ChatAnthropic", "ChatAnthropicMessages", "AnthropicLLM", "Anthropic")
    },
    "langchain_community.chat_models.ChatAnthropic": OtherSdk(LANGCHAIN),
    "langchain_community.llms.Anthropic": OtherSdk(LANGCHAIN),
    "langchain.chat_models.ChatAnthropic": OtherSdk(LANGCHAIN),
    "langchain.chat_models.init_chat_model": OtherSdk(LANGCHAIN, named_by=("model", 0)),
    "langchain_google_vertexai.model_garden.ChatAnthropicVertex": OtherSdk(LANGCHAIN),
    **{
        f"langchain_aws.{name}": OtherSdk(LANGCHAIN, named_by=(keyword, 0))
        for name in ("ChatBedrock", "ChatBedrockConverse", "BedrockLLM")
        for keyword in ("model_id",)
    },
    "langchain_aws.ChatAnthropicBedrock": OtherSdk(LANGCHAIN),
    "llama_index.llms.anthropic.Anthropic": OtherSdk(LLAMA_INDEX),
    "llama_index.llms.bedrock_converse.BedrockConverse": OtherSdk(LLAMA_INDEX, named_by=("model", 0)),
    **{
        f"litellm.{name}": OtherSdk(named_by=("model", 0))
        for name in ("completion", "acompletion", "text_completion", "atext_completion", "responses", "aresponses")
    },
    "litellm.batch_completion": OtherSdk(named_by=("model", 0)),
    "dspy.LM": OtherSdk(frozenset({"__call__", "acall", "forward", "aforward"}), named_by=("model", 0)),
    "crewai.LLM": OtherSdk(frozenset({"call", "acall"}), named_by=("model", 0)),
    "pydantic_ai.Agent": OtherSdk(
        frozenset({"run", "run_sync", "run_stream", "iter", "run_stream_events"}), named_by=("model", 0)
    ),
    "claude_agent_sdk.query": OtherSdk(),
    "claude_agent_sdk.ClaudeSDKClient": OtherSdk(frozenset({"query"})),
    "claude_code_sdk.query": OtherSdk(),
    "haystack_integrations.components.generators.anthropic.AnthropicChatGenerator": OtherSdk(
        frozenset({"run", "run_async"})
    ),
    "autogen_ext.models.anthropic.AnthropicChatCompletionClient": OtherSdk(frozenset({"create", "create_stream"})),
    "strands.models.anthropic.AnthropicModel": OtherSdk(frozenset({"stream", "structured_output"})),
}
"""What is imported elsewhere under another path (`pkg.module.Name`) is found by its package and its last name."""

WRAPPERS = frozenset(
    {
        *("instructor.from_anthropic", "instructor.patch", "langsmith.wrappers.wrap_anthropic"),
        *("braintrust.wrap_anthropic", "weave.op", "opik.integrations.anthropic.track_anthropic"),
    }
)
"""Give back the client that they are handed, with something around it."""

PRETENCES = frozenset(
    {
        *("unittest", "mock", "pytest", "pytest_mock", "respx", "responses", "requests_mock", "pytest_httpx", "vcr"),
        *("aioresponses", "httpretty", "pook", "faker"),
    }
)
PRETENDING = frozenset({"mocker", "class_mocker", "monkeypatch", "respx_mock", "httpx_mock", "requests_mock"})
"""Parameters by which tests are handed such things."""
OTHER_APIS = frozenset(
    {
        *("openai", "twilio", "groq", "mistralai", "cohere", "together", "stripe", "slack_sdk", "slack", "discord"),
        *("telegram", "googleapiclient", "sendgrid", "mailgun", "vonage", "plivo", "vertexai", "fireworks"),
        *("zulip", "replicate", "ollama", "huggingface_hub", "xai_sdk", "cerebras", "deepseek", "portkey_ai"),
        *("intercom", "zendesk", "nylas", "messagebird", "sinch", "telnyx", "infobip"),
    }
)
"""Libraries whose own `messages.create` is another one."""


def other_sdk(dotted: str) -> OtherSdk | None:
    """By its whole name, else by package and last name, wherever in the package it is imported from."""
    if (known := OTHER_SDKS.get(dotted)) is not None:
        return known
    package, _, name = dotted.partition(".")
    last = name.rpartition(".")[2]
    for candidate, sdk in OTHER_SDKS.items():
        if candidate.partition(".")[0] == package and candidate.rpartition(".")[2] == last and "." in name:
            return sdk
    return None


def is_something_else(dotted: str) -> bool:
    """Whether this surely is no client of Anthropic's."""
    return dotted.partition(".")[0] in PRETENCES | OTHER_APIS or dotted.startswith("builtins.")
