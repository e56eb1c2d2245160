"""Errors as each API words them."""

from relight.engine.fake.asked import Api
from relight.engine.fake.steps import Step

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    504: "timeout_error",
    529: "overloaded_error",
}
MESSAGES = {
    "authentication_error": "invalid x-api-key",
    "billing_error": "Your credit balance is too low",
    "permission_error": "Your API key does not have permission to use the specified resource",
    "not_found_error": "Not found",
    "timeout_error": "The request timed out",
    "request_too_large": "Request exceeds the maximum size",
    "rate_limit_error": "This request would exceed your rate limit",
    "overloaded_error": "Overloaded",
    "api_error": "Internal server error",
}
AWS = {
    "authentication_error": "UnrecognizedClientException",
    "invalid_request_error": "ValidationException",
    "not_found_error": "ResourceNotFoundException",
    "overloaded_error": "ServiceUnavailableException",
    "permission_error": "AccessDeniedException",
    "rate_limit_error": "ThrottlingException",
    "timeout_error": "ModelTimeoutException",
}
"""Exceptions of `InvokeModel`; any other type is an `InternalServerException`."""


def error_type(step: Step, status: int) -> str:
    if step.error_type is not None:
        return step.error_type
    return TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def status_of(error_type: str) -> int:
    """The status that an error has where it does not come inside a stream."""
    return next((status for status, known in TYPES.items() if known == error_type), 500)


def error_message(step: Step, error_type: str) -> str:
    return step.error_message or MESSAGES.get(error_type, "Invalid request")


def error(error_type: str, message: str, request_id: str) -> dict[str, object]:
    """The Anthropic API's; Vertex passes it on."""
    return {"type": "error", "error": {"type": error_type, "message": message}, "request_id": request_id}


def aws_exception(error_type: str) -> str:
    return AWS.get(error_type, "InternalServerException")


def error_body(api: Api, error_type: str, message: str, request_id: str) -> tuple[dict[str, object], dict[str, str]]:
    """The body, and the headers that go with it."""
    if api is Api.BEDROCK:
        return {"message": message}, {"x-amzn-errortype": aws_exception(error_type)}
    return error(error_type, message, request_id), {}
