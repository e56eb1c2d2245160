"""The tasks without which a process is of no use: one that ended by itself takes /livez with it."""

import asyncio


class VitalTasks:
    """A task that was cancelled was ended by us: that is no death."""

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, name: str, task: "asyncio.Task[None]") -> None:
        """From now on; a later one takes the place of an earlier one of that name."""
        self._tasks[name] = task

    def dead(self) -> list[str]:
        """The names of those that returned or raised."""
        return [name for name, task in self._tasks.items() if task.done() and not task.cancelled()]
