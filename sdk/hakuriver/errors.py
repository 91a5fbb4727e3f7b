"""Every error of HakuRiver, as one tree.

    HakuRiverError
    ├── UsageError            usage          400  exit 2   what was asked for is malformed
    │   └── TooLargeError     too_large      413  exit 2
    ├── UnauthenticatedError  unauthenticated 401 exit 4   no token, or one that is not known
    ├── DeniedError           denied         403  exit 4   known, but not allowed
    ├── NotFoundError         not_found      404  exit 3
    ├── ConflictError         conflict       409  exit 5   not in this state
    │   └── ImpossibleError   impossible     409  exit 5   no known node can ever run it
    ├── VersionError          version        426  exit 1   the peer is too old or too new
    ├── UnreachableError      unreachable    502  exit 6   nothing answers at that address
    ├── StorageError          storage        507  exit 1   disk full, unwritable, not a database
    └── InternalError         internal       500  exit 1   a defect of HakuRiver

Each travels as JSON (`hakuriver.models.errors`), and is printed by commands as one line of what is wrong and one of
what to do next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from hakuriver.models.errors import ErrorBody


class HakuRiverError(Exception):
    """The root. `code`, `http_status` and `exit_code` belong to the class, message and hint to the case."""

    code: ClassVar[str] = "internal"
    http_status: ClassVar[int] = 500
    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def body(self) -> ErrorBody:
        from hakuriver.models.errors import ErrorBody  # noqa: PLC0415  (models load much, which a command may not need)

        return ErrorBody(error=self.code, message=self.message, hint=self.hint)


class UsageError(HakuRiverError):
    code = "usage"
    http_status = 400
    exit_code = 2


class TooLargeError(UsageError):
    code = "too_large"
    http_status = 413


class UnauthenticatedError(HakuRiverError):
    code = "unauthenticated"
    http_status = 401
    exit_code = 4


class DeniedError(HakuRiverError):
    code = "denied"
    http_status = 403
    exit_code = 4


class NotFoundError(HakuRiverError):
    code = "not_found"
    http_status = 404
    exit_code = 3


class ConflictError(HakuRiverError):
    code = "conflict"
    http_status = 409
    exit_code = 5


class ImpossibleError(ConflictError):
    code = "impossible"


class VersionError(HakuRiverError):
    code = "version"
    http_status = 426


class UnreachableError(HakuRiverError):
    code = "unreachable"
    http_status = 502
    exit_code = 6


class StorageError(HakuRiverError):
    code = "storage"
    http_status = 507


class InternalError(HakuRiverError):
    code = "internal"


_BY_CODE: dict[str, type[HakuRiverError]] = {
    kind.code: kind
    for kind in (
        UsageError,
        TooLargeError,
        UnauthenticatedError,
        DeniedError,
        NotFoundError,
        ConflictError,
        ImpossibleError,
        VersionError,
        UnreachableError,
        StorageError,
        InternalError,
    )
}


def from_status(http_status: int, message: str, hint: str) -> HakuRiverError:
    """The most general error of that status; one that is not known becomes `InternalError`."""
    kinds = (kind for kind in _BY_CODE.values() if kind.http_status == http_status)
    return next(kinds, InternalError)(message, hint)


def from_body(body: ErrorBody) -> HakuRiverError:
    """The error that a peer sent; an unknown code becomes `InternalError`."""
    return _BY_CODE.get(body.error, InternalError)(body.message, body.hint)
