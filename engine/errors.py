"""Every error that the engine raises, in one tree.

RelightError
├── SettingsError            a RELIGHT_* value is unknown, missing or invalid
├── Unreachable              NATS or PostgreSQL does not answer, or refuses the credentials
│   ├── AccessRefused        it refuses the credentials, or has no such database: waiting will not help
│   └── PoolExhausted        no connection came free within the acquire timeout
├── EmbeddedServerError      a server that we start for the user did not start or stopped
├── TopologyRefused          a topology breaks a rule, which it names
├── RecorderError
│   ├── SpoolUnusable        the spool file is foreign, newer, corrupt or read-only
│   ├── RecordRefused        not recorded: a cap is reached or the recorder is closed
│   ├── AckNotProven         the asked acknowledgement cannot be promised here
│   ├── AckTimeout           the asked acknowledgement did not come in time
│   └── DeadLettered         recorded, but the projector refused it
├── ControlError
│   └── Superseded           another writer's control event came first
├── FailoverRefused          a ruling on a fleet's routing would break a rule, which it names
├── ArchiveError
│   ├── ArchiveDamaged       a part of an archive is missing, altered or unreadable
│   ├── ArchiveConflict      another archiver sealed this segment first
│   └── ArchiveUnreachable   the folder or object store does not answer, or refuses the credentials
├── RestoreRefused           what would be restored into is not empty
├── TrimRefused              the stream must not be trimmed: something on it is not as it was sealed
├── HistoryGone              the stream was trimmed, and what is left of it does not do for what was asked
├── ContentError             content is missing or does not match its digest
│   └── ContentErased        it was deleted on demand
├── Rewound                  the stream was put back to an older copy while it was read
├── ProjectorError
│   └── Fenced               another projector moved the position
├── MigrationError           an applied migration was edited, or one failed
├── ImportRefused            a file cannot be imported
├── IngestRefused            an event from outside cannot be taken
├── RebuildRefused           a rebuild runs already, or what it built must not be swapped in
├── TokenRefused             a bearer token is missing, unknown, expired, revoked or of the wrong role
│   └── NotAllowed           it is valid, but of another role or tenant
├── GuardError
│   ├── CircuitOpen          no dependency that could answer lets calls pass now
│   ├── BudgetExceeded       a limit on tokens, cost or attempts is reached
│   └── DeadlineExceeded     the caller's deadline came first
├── TaskError
│   ├── TaskFenced           the task is not this owner's any more
│   ├── TaskGivenUp          raised by a worker's function: no attempt at it will do
│   ├── TaskRefused          it cannot be submitted, or not be worked on, as it is
│   ├── SnapshotDamaged      the snapshot that it would go on from is missing, or not what was written
│   └── TaskUnknown          there is no such task of this tenant
├── CoverageError            sources cannot be read, or the configuration of `relight coverage` is wrong
├── DrillFailed              a drill cannot go on, which is worse than a promise that it finds broken
├── RequestRefused           an HTTP request or a NATS message is not taken as it is: malformed, too large, too often
└── QueryError               no such query, or a parameter is missing or invalid
    └── QueryFailed          the database could not answer it
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from functools import partial


class RelightError(Exception):
    """Root of what the engine raises; `str()` is one sentence and what to do next."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or type(self).__name__).strip())


class SettingsError(RelightError):
    """A RELIGHT_* setting is unknown, missing or invalid."""


class DrillFailed(RelightError):
    """A drill cannot go on: what it waits for does not come."""


class Unreachable(RelightError):
    """A server does not answer, or refuses the credentials."""


class AccessRefused(Unreachable):
    """A server refuses the credentials, or has no such database: correct the address, for waiting will not help."""


class PoolExhausted(Unreachable):
    """No connection to PostgreSQL came free within the acquire timeout."""


class EmbeddedServerError(RelightError):
    """A server started by relight did not start, or stopped by itself."""


class TopologyRefused(RelightError):
    """A topology breaks a rule; `rule` is its name."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"topology refused ({rule}): {detail}")
        self.rule = rule
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.rule, self.detail)


class RecorderError(RelightError):
    """The recorder could not do what was asked."""


class SpoolFault(StrEnum):
    """What is wrong with a spool; it stands in the name of the file that was put aside for it."""

    CORRUPT = "corrupt"
    FOREIGN = "foreign"
    NEWER = "newer"
    READ_ONLY = "readonly"
    FORKED = "forked"
    """another process writes under its identity; the file is sound"""
    FULL = "full"
    """the disk, that is: the file is sound"""
    FAILING = "failing"
    """the disk or the folder answers with errors"""


class SpoolUnusable(RecorderError):
    """The spool file is foreign, newer than this version, corrupt or read-only; `fault` says which."""

    def __init__(self, message: str | None = None, *, fault: SpoolFault = SpoolFault.FAILING) -> None:
        super().__init__(message)
        self.fault = fault


class RecordRefused(RecorderError):
    """The event was not recorded: a cap is reached or the recorder is closed."""


class AckNotProven(RecorderError):
    """The asked acknowledgement cannot be promised here."""


class AckTimeout(RecorderError):
    """The asked acknowledgement did not come in time."""


class DeadLettered(RecorderError):
    """The event was recorded, but the projector refused it."""


class ControlError(RelightError):
    """A control event could not be appended."""


class Superseded(ControlError):
    """Another writer's control event came first."""


class FailoverRefused(RelightError):
    """A ruling on a fleet's routing would break a safety rule; `rule` is its name."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(f"refused ({rule}): {detail}")
        self.rule = rule
        self.detail = detail

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.rule, self.detail)


class ArchiveError(RelightError):
    """An archive could not be written or read."""


class ArchiveDamaged(ArchiveError):
    """A part of an archive is missing, altered or unreadable."""


class ArchiveConflict(ArchiveError):
    """Another archiver sealed this segment first: nothing was written."""


class ArchiveUnreachable(ArchiveError):
    """The archive's folder or object store does not answer, or refuses the credentials."""


class RestoreRefused(RelightError):
    """What would be restored into is not empty."""


class TrimRefused(RelightError):
    """The stream must not be trimmed: something on it is not as it was sealed."""


class HistoryGone(RelightError):
    """The stream was trimmed, and what is left of it does not do for what was asked."""


class ContentError(RelightError):
    """Content is missing or does not match its digest."""


class ContentErased(ContentError):
    """Content was deleted on demand."""


class Rewound(RelightError):
    """What stands at the reader's position is not what it read there: the stream was put back to an older copy."""


class ProjectorError(RelightError):
    """The projector had to stop."""


class Fenced(ProjectorError):
    """Another projector moved the position: nothing was written."""


class MigrationError(RelightError):
    """A migration failed, or an applied file was edited."""


class ImportRefused(RelightError):
    """A file cannot be imported."""


class QueryError(RelightError):
    """There is no such query, or a parameter is missing or invalid."""


class QueryFailed(QueryError):
    """The database could not answer a query that was asked rightly."""


class IngestRefused(RelightError):
    """An event from outside cannot be taken."""


class RebuildRefused(RelightError):
    """A rebuild runs already, or what it built must not be swapped in."""


class TokenRefused(RelightError):
    """The bearer token is missing, unknown, expired, revoked or of the wrong role."""


class NotAllowed(TokenRefused):
    """The bearer token is valid, but its role or tenant does not allow this."""


class GuardError(RelightError):
    """A guarded call was not made, or not to its end."""


class CircuitOpen(GuardError):
    """No dependency that could answer lets calls pass now.

    `problem` has the members of RFC 9457, `retry_at` is when the first of them may let calls pass again.
    """

    def __init__(self, message: str | None = None, *, problem: Mapping[str, object], retry_at: datetime) -> None:
        super().__init__(message)
        self.problem = problem
        self.retry_at = retry_at

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), problem=self.problem, retry_at=self.retry_at), self.args


class BudgetExceeded(GuardError):
    """A limit on tokens, cost or attempts is reached; `problem` has the members of RFC 9457."""

    def __init__(self, message: str | None = None, *, problem: Mapping[str, object]) -> None:
        super().__init__(message)
        self.problem = problem

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), problem=self.problem), self.args


class DeadlineExceeded(GuardError, TimeoutError):
    """The caller's deadline came before an answer."""


class TaskError(RelightError):
    """Something about a task could not be done."""


class TaskFenced(TaskError):
    """The task is not this owner's any more: nothing was written.

    `epoch` was the owner's; `owner`, `region` and `new_epoch` are those of who has it now, None where nobody has.
    """

    def __init__(
        self,
        message: str | None = None,
        *,
        task: str,
        epoch: int,
        owner: str | None = None,
        region: str | None = None,
        new_epoch: int | None = None,
    ) -> None:
        super().__init__(message)
        self.task = task
        self.epoch = epoch
        self.owner = owner
        self.region = region
        self.new_epoch = new_epoch

    def __reduce__(self) -> tuple[object, ...]:
        told = partial(
            type(self),
            task=self.task,
            epoch=self.epoch,
            owner=self.owner,
            region=self.region,
            new_epoch=self.new_epoch,
        )
        return told, self.args


class TaskGivenUp(TaskError):
    """A worker's function gives the task up: no further attempt is made."""


class TaskRefused(TaskError):
    """A task cannot be submitted, or not be worked on, as it is."""


class SnapshotDamaged(TaskError):
    """The snapshot that a task would go on from is missing, or not what was written; `sha256` names it."""

    def __init__(self, message: str | None = None, *, sha256: str) -> None:
        super().__init__(message)
        self.sha256 = sha256

    def __reduce__(self) -> tuple[object, ...]:
        return partial(type(self), sha256=self.sha256), self.args


class TaskUnknown(TaskError):
    """There is no such task of this tenant."""


class CoverageError(RelightError):
    """Sources cannot be read, or the configuration of `relight coverage` is wrong."""


class RequestRefused(RelightError):
    """A request over HTTP or a message of NATS is not taken as it is; `problem` is the kind that its sender is told."""

    def __init__(self, problem: str, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.problem = problem
        self.headers = dict(headers or {})
