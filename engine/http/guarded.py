"""What a web application answers where a guard refused a call: a problem document that says when to come back."""

import math

import orjson
from starlette.requests import Request
from starlette.responses import Response

from relight.engine.errors import BudgetExceeded, CircuitOpen, GuardError
from relight.engine.problems import MEDIA_TYPE, document, kind_of


def problem_response(error: GuardError) -> Response:
    """503 for `CircuitOpen`, 429 for `BudgetExceeded`, 504 for `DeadlineExceeded`; `Retry-After` where it is known.

    It names dependencies, agents, tasks and limits: only for those who may know them.
    """
    problem = dict(error.problem) if isinstance(error, CircuitOpen | BudgetExceeded) else {}
    problem = problem or document(kind_of(error), str(error))
    after_s, status = problem.get("retry_after_s"), problem["status"]
    headers = {"Retry-After": str(math.ceil(after_s))} if isinstance(after_s, int | float) else None
    assert isinstance(status, int)
    return Response(orjson.dumps(problem), status, headers, MEDIA_TYPE)


async def problem_handler(_: Request, error: Exception) -> Response:
    """`app.add_exception_handler(relight.GuardError, relight.problem_handler)`, of FastAPI and Starlette."""
    assert isinstance(error, GuardError)
    return problem_response(error)
