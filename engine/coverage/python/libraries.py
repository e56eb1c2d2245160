"""Calls of libraries: the SDK and Relight themselves, and whatever hands values on."""

from __future__ import annotations

import ast

from relight.engine.coverage.models import Evidence, Guarded, Kind
from relight.engine.coverage.python.builtin_calls import Builtins, is_callable
from relight.engine.coverage.python.calls import CONTENT, names_a_model
from relight.engine.coverage.python.other_sdks import (
    BEDROCK,
    HOST,
    HTTP_CLIENTS,
    HTTP_VERBS,
    WRAPPERS,
    OtherSdk,
    other_sdk,
)
from relight.engine.coverage.python.sdk import (
    client_class,
    is_fallback_class,
    is_guard_class,
    is_guarding_function,
)
from relight.engine.coverage.python.state import Arguments, Judgement
from relight.engine.coverage.python.values import (
    NOTHING,
    Box,
    Class,
    Client,
    Frame,
    Function,
    GuardMiddleware,
    Made,
    Other,
    Outside,
    Part,
    Partial,
    Provider,
    Text,
    Thing,
    Values,
    texts,
    unboxed,
)

CALLERS = frozenset(
    {
        *("to_thread", "run_sync", "run_in_executor", "submit", "run_in_threadpool", "run_until_complete", "run"),
        *("call_soon", "call_later", "call_soon_threadsafe", "start_soon", "start", "spawn", "add_task", "apply_async"),
        *("SimpleLazyObject", "LocalProxy", "LazyObject", "Proxy", "LazyProxy", "retry_call"),
    }
)
"""Call the function that they are handed, and give what it gives."""
HAND_ON = frozenset(
    {
        *("cast", "nullcontext", "closing", "aclosing", "enter_context", "enter_async_context", "push_async_callback"),
        *("create_task", "ensure_future", "wait_for", "shield", "deepcopy", "proxy", "getenv", "get", "Lazy"),
    }
)
ATTRIBUTE = "operator.attrgetter()"
"""What that gives, waiting for its object."""
NAMESPACES = frozenset({"Namespace", "SimpleNamespace", "local"})
KEEPERS = NAMESPACES | {"ContextVar", "Queue", "LifoQueue", "SimpleQueue"}
KEEPING = frozenset({"contextvars", "queue", "asyncio", "multiprocessing", "types", "argparse", "threading"})
RESOLVING = frozenset({"resolve", "get", "get_instance", "aget", "get_by_type", "inject", "create", "make", "provide"})
REGISTERING = frozenset(
    {"register", "bind", "add_singleton", "add_instance", "singleton", "provide", "register_factory"}
)


class Libraries(Builtins):
    """Knows what some libraries do with what they are handed; of all others, that they may hand a client on."""

    def call_outside(self, dotted: str, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        if dotted in self.guarding_names:
            return self.guarded(arguments, at, frame, f"{dotted}, which configuration says guards")
        if dotted in self.client_names:
            return frozenset({self.construct(dotted, Arguments(), at, frame)})
        if (what := client_class(dotted)) is not None:
            return frozenset({self.construct(what, arguments, at, frame)})
        if is_guarding_function(dotted):
            return self.guarded(arguments, at, frame, "relight.guarded")
        if is_guard_class(dotted) or is_fallback_class(dotted):
            self.handed_to_guard(arguments, at, frame, dotted.rpartition(".")[2])
            return frozenset({GuardMiddleware(self.place(at, frame))}) if is_guard_class(dotted) else NOTHING
        if (sdk := other_sdk(dotted)) is not None:
            return self._other(dotted, sdk, arguments, at, frame)
        package, _, name = dotted.rpartition(".")
        if package == "builtins":
            return self.call_builtin(name, arguments, at, frame)
        if dotted in HTTP_CLIENTS and any(HOST in text for values in arguments.all() for text in texts(values)):
            why = f"it goes to {HOST} past the SDK and so past any Guard"
            return frozenset({Other(dotted, self.place(at, frame), HTTP_VERBS, Guarded.NO, why)})
        return self._well_known(dotted, name, arguments, at, frame)

    def _well_known(self, dotted: str, name: str, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        first = arguments.get("", 0)
        match dotted:
            case "functools.partial" | "functools.partialmethod":
                rest = arguments.positional[1:]
                return frozenset(Partial(value, rest, arguments.keywords) for value in first if is_callable(value))
            case "operator.attrgetter":
                return frozenset({Partial(Outside(ATTRIBUTE), (first,), ())})
            case "operator.attrgetter()":
                found = arguments.get("", 1)
                for text in texts(first)[:1]:
                    for part in text.split("."):
                        found = self.attribute(found, part, frame)
                return found
            case "functools.reduce":
                # Whatever the functions make of it: they are not gone through in their order here.
                for client in arguments.get("", 2):
                    if isinstance(client, Client):
                        self.perhaps_guarded_at.setdefault(client.place, (self.place(at, frame), "functools.reduce"))
            case "importlib.import_module" | "builtins.__import__":
                return self.imported(texts(first), frame)
            case "typing.cast" | "typing_extensions.cast":
                typed = self.annotated(at.args[0] if at.args else None, frame, "cast", at)
                return arguments.get("val", 1) or typed
            case "contextlib.contextmanager" | "contextlib.asynccontextmanager":
                return first
        if name in {"field", "Field", "ib", "attrib", "PrivateAttr"}:
            made = self.call_all(arguments.get("default_factory") | arguments.get("factory"), Arguments(), at, frame)
            return made | arguments.get("default")
        if name == "Factory" and package_of(dotted) in {"attr", "attrs"}:
            return self.call_all(first, Arguments(), at, frame)
        if name in KEEPERS and package_of(dotted) in KEEPING:
            return self._keeper(name, arguments, at, frame)
        if name in {"Thread", "Process", "Timer"} and (target := arguments.get("target", 1)):
            given = arguments.get("args")
            handed = Arguments(tuple(unboxed(given, str(number)) for number in range(len(_entries(given)))))
            self.call_all(frozenset(v for v in target if is_callable(v)), handed, at, frame)
            return frozenset({Made(dotted)})
        if name in {"Depends", "Security", "Inject", "Provide", "FromDishka"}:
            return self._dependency(first | arguments.get("dependency"), at, frame)
        if ".providers." in f".{dotted}." and name[:1].isupper():
            return self._provider(name, arguments, at, frame)
        if dotted in {"boto3.client", "aioboto3.client"}:
            return self._bedrock(arguments, at, frame)
        if dotted == "itertools.cycle" or name in {"chain", "choice", "islice"}:
            return unboxed(first) if name == "choice" else first
        return self._unknown(dotted, name, arguments, at, frame)

    def _unknown(self, dotted: str, name: str, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        """Any other: what it makes is its own; a client that goes in first may come out."""
        first = arguments.get("", 0)
        result: Values = frozenset({Made(dotted)})
        if name in CALLERS:
            return result | self._called_there(arguments, at, frame, dotted)
        if name in HAND_ON:
            return frozenset(
                v for values in arguments.all() for v in values if not isinstance(v, Text) or HOST in v.text
            )
        handed = self.passed_on(arguments, at, frame, dotted)
        clients = frozenset(value for value in handed if isinstance(value, Client | Part))
        functions = frozenset(value for value in first if isinstance(value, Function | Class | Partial))
        addresses = frozenset(
            value for values in arguments.all() for value in values if isinstance(value, Text) and HOST in value.text
        )
        if clients or functions or addresses:
            return clients | functions | addresses
        if dotted in WRAPPERS:
            return first
        return result

    def _called_there(self, arguments: Arguments, at: ast.Call, frame: Frame, by: str) -> Values:
        """Calls whatever function it is handed, with what comes after it."""
        result: Values = NOTHING
        for number, values in enumerate(arguments.positional[:2]):
            rest = Arguments(arguments.positional[number + 1 :], arguments.keywords, arguments.starred)
            for value in values:
                if isinstance(value, Part):
                    how = f"; it is handed to {by}, which makes the call"
                    result |= self.call_part(value, rest, at, frame, how)
                elif isinstance(value, Function | Class | Partial):
                    result |= self.call_value(value, rest, at, frame)
                elif not is_callable(value) and not isinstance(value, Text):
                    result |= {value}
        return result

    def call_made(self, made: Made, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        """A method of something that a library made."""
        name = made.path[-1] if made.path else "__call__"
        if name == "guarded" and made.dotted.partition(".")[0] == "relight":
            return self.guarded(arguments, at, frame, f"guarded() of {made.dotted}()")
        if name == "client" and made.dotted.rpartition(".")[2] in {"Session", "get_session"} and "boto" in made.dotted:
            return self._bedrock(arguments, at, frame)
        if name in REGISTERING:
            self._register(arguments, at, frame)
        if name in RESOLVING and (given := self.resolved(name, arguments)):
            return given
        if name in CALLERS:
            return self._called_there(arguments, at, frame, f"{made.dotted}().{name}")
        if name in HAND_ON:
            handed = frozenset(
                v for values in arguments.all() for v in values if not isinstance(v, Text) or HOST in v.text
            )
            if handed:
                return handed
        handed = self.passed_on(arguments, at, frame, f"{made.dotted}().{name}")
        functions = frozenset(v for v in arguments.get("", 0) if isinstance(v, Function | Class | Partial))
        return handed | functions | frozenset({Made(made.dotted, made.path[:4])})

    def resolved(self, name: str, arguments: Arguments) -> Values:
        found: Values = NOTHING
        for value in arguments.get("", 0):
            if isinstance(value, Outside) and (what := client_class(value.dotted)) is not None:
                found |= self.registered.get(what, NOTHING)
        return found

    def _register(self, arguments: Arguments, at: ast.Call, frame: Frame) -> None:
        for value in arguments.get("", 0):
            if isinstance(value, Outside) and (what := client_class(value.dotted)) is not None:
                rest = [*arguments.positional[1:], *(values for _, values in arguments.keywords)]
                given: Values = NOTHING
                for other in NOTHING.union(*rest):
                    if isinstance(other, Client):
                        given |= {other}
                    elif is_callable(other):
                        given |= self.call_value(other, Arguments(), at, frame)
                if not rest:
                    given = self.call_value(value, Arguments(), at, frame)
                self.grow(self.registered, what, given)

    def _keeper(self, name: str, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        by_attribute = name in NAMESPACES
        thing = Thing(self.place(at, frame), methods=not by_attribute)
        for keyword, values in arguments.keywords:
            if keyword is not None:
                self.keep_in(thing, keyword if by_attribute else CONTENT, values)
        return frozenset({thing})

    def _dependency(self, providers: Values, at: ast.Call, frame: Frame) -> Values:
        found: Values = NOTHING
        for provider in providers:
            match provider:
                case Function() | Class() | Partial() | Provider():
                    given = self.call_value(provider, Arguments(), at, frame)
                    is_generator = isinstance(provider, Function) and any(isinstance(v, Box) for v in given)
                    found |= unboxed(given) if is_generator else given
                case Outside(dotted) if client_class(dotted):
                    found |= self.call_value(provider, Arguments(), at, frame)
                case _:
                    pass
        return found

    def _provider(self, name: str, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        """dependency_injector's: what it provides is what it was given, called."""
        first = arguments.get("", 0)
        given = tuple(self._provided(values) for values in arguments.positional[1:])
        keywords = tuple((key, self._provided(values)) for key, values in arguments.keywords)
        rest = Arguments(given, keywords)
        if name == "Object":
            return frozenset({Provider(first)})
        made: Values = NOTHING
        for value in first:
            if is_callable(value):
                result = self.call_value(value, rest, at, frame)
                made |= unboxed(result) or result
        return frozenset({Provider(made)})

    def _bedrock(self, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        if "bedrock-runtime" not in texts(arguments.get("service_name", 0)):
            return frozenset({Made("boto3.client")})
        why = "boto3 calls Bedrock itself, past the SDK and so past any Guard; AnthropicBedrock can be guarded"
        return frozenset({Other("boto3.bedrock-runtime", self.place(at, frame), BEDROCK, Guarded.NO, why)})

    def _other(self, dotted: str, sdk: OtherSdk, arguments: Arguments, at: ast.Call, frame: Frame) -> Values:
        guarded, why = Guarded.NO, f"{dotted} calls the model by its own client, which no Guard is in"
        if sdk.named_by is not None:
            match names_a_model(arguments, sdk.named_by):
                case False:
                    return frozenset({Made(dotted)})
                case None:
                    guarded, why = Guarded.UNKNOWN, f"{dotted} may call a model of Anthropic's; these files do not say"
                case True:
                    pass
        place, in_test = self.place(at, frame), frame.module.source.in_test
        clients = frozenset(v for values in arguments.all() for v in values if isinstance(v, Client))
        other = Other(dotted, place, sdk.methods, guarded, why, clients)
        if not sdk.methods:
            return self.call_other(other, "__call__", at, frame)
        if not clients and guarded is Guarded.NO:
            trail = (Evidence(place.path, place.line, f"{dotted} is constructed"),)
            self.judge(
                at, frame, Kind.CLIENT, dotted.rpartition(".")[2], Judgement(guarded, why, trail, in_test=in_test)
            )
        return frozenset({other})


def package_of(dotted: str) -> str:
    return dotted.partition(".")[0]


def _entries(values: Values) -> list[tuple[str | None, Values]]:
    return [entry for value in values if isinstance(value, Box) for entry in value.entries]
