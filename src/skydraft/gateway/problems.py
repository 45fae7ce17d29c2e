"""What went wrong, in the form in which OpenAI's clients expect it."""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from skydraft.cloud.access.guard import Refusal
from skydraft.errors import (
    AudioError,
    CacheOverflow,
    CloudBusy,
    CloudFault,
    ConfigError,
    PromptRejected,
    SkydraftError,
    TransportError,
)
from skydraft.protocol.messages import FaultCode

INVALID, AUTHENTICATION, PERMISSION, LIMIT, SERVER = (
    "invalid_request_error",
    "authentication_error",
    "permission_error",
    "rate_limit_error",
    "server_error",
)
_TYPES = {
    HTTPStatus.UNAUTHORIZED: AUTHENTICATION,
    HTTPStatus.FORBIDDEN: PERMISSION,
    HTTPStatus.TOO_MANY_REQUESTS: LIMIT,
}
CONTEXT_LENGTH = "context_length_exceeded"
RETRY_AFTER_S = 1


class BadRequest(SkydraftError):
    """A request that cannot be answered as it stands.

    parameter: the field that is wrong, where it is one. code: by which programs know the error.
    """

    def __init__(
        self,
        sentence: str,
        parameter: str | None = None,
        status: HTTPStatus = HTTPStatus.BAD_REQUEST,
        code: str | None = None,
    ) -> None:
        self.sentence = sentence
        self.parameter = parameter
        self.status = status
        self.code = code
        super().__init__(sentence)


class Problem(NamedTuple):
    """An answer that says what is wrong."""

    status: HTTPStatus
    sentence: str
    kind: str
    parameter: str | None = None
    code: str | None = None

    def body(self) -> dict[str, object]:
        """The object that clients expect."""
        return {
            "error": {"message": self.sentence, "type": self.kind, "param": self.parameter, "code": self.code},
        }

    def headers(self) -> dict[str, str]:
        if self.status is HTTPStatus.UNAUTHORIZED:
            return {"WWW-Authenticate": "Bearer"}
        is_for_now = self.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        return {"Retry-After": str(RETRY_AFTER_S)} if is_for_now else {}


def problem_of(error: Exception) -> Problem:
    """What to tell an app; of an error that is ours nothing but that there was one."""
    match error:
        case BadRequest():
            kind = LIMIT if error.status is HTTPStatus.TOO_MANY_REQUESTS else INVALID
            return Problem(error.status, error.sentence, kind, error.parameter, error.code)
        case Refusal():
            return Problem(error.status, error.sentence, _TYPES.get(error.status, SERVER))
        case CacheOverflow():
            return Problem(HTTPStatus.BAD_REQUEST, str(error), INVALID, code=CONTEXT_LENGTH)
        case ConfigError() | PromptRejected() | AudioError():
            return Problem(HTTPStatus.BAD_REQUEST, str(error), INVALID)
        case CloudFault():
            return _of_fault(error)
        case CloudBusy():
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(error), SERVER, code="cloud_busy")
        case TransportError():
            return Problem(HTTPStatus.BAD_GATEWAY, str(error), SERVER, code="cloud_unreachable")
        case SkydraftError():
            return Problem(HTTPStatus.BAD_GATEWAY, str(error), SERVER)
    return Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "the gateway failed; its log says why", SERVER)


def _of_fault(fault: CloudFault) -> Problem:
    code = f"cloud_{fault.code}"
    match fault.code:
        case FaultCode.PROMPT | FaultCode.SAMPLING:
            return Problem(HTTPStatus.BAD_REQUEST, str(fault), INVALID, code=code)
        case FaultCode.LIMIT:
            return Problem(HTTPStatus.BAD_REQUEST, str(fault), INVALID, code=CONTEXT_LENGTH)
        case FaultCode.BUSY:
            return Problem(HTTPStatus.SERVICE_UNAVAILABLE, str(fault), SERVER, code=code)
    return Problem(HTTPStatus.BAD_GATEWAY, str(fault), SERVER, code=code)
