"""Runs programs, each in a fork of a process that has imported what they need: an interpreter each would cost seconds.

Reads jobs from stdin, a JSON document a line, and says of each on stdout which process has it, and how that ended.
"""

import io
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import boto3  # noqa: F401
import fastapi.testclient  # noqa: F401
import opentelemetry.sdk.trace.export  # noqa: F401
from anthropic import AnthropicBedrock, AnthropicVertex  # noqa: F401
from anthropic.lib.aws import _auth  # noqa: F401

import relight.engine.guard.counting.counting
import relight.engine.guard.guarded  # noqa: F401
from relight.engine.cli.main import main


def serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody here waits for those who do
    for line in sys.stdin:
        job = json.loads(line)
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            watch(job)
            os._exit(0)


def watch(job: dict[str, Any]) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(run(job))
    say({"number": job["number"], "pid": pid})
    _, status = os.waitpid(pid, 0)
    say({"number": job["number"], "code": os.waitstatus_to_exitcode(status)})


def say(document: dict[str, Any]) -> None:
    os.write(1, f"{json.dumps(document)}\n".encode())  # short enough to be written in one piece


def run(job: dict[str, Any]) -> int:
    """The program's exit code; what it prints goes into the job's file."""
    out = os.open(job["out"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for number in (1, 2):
        os.dup2(out, number)
    sys.stdin = io.StringIO()
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
    os.environ.clear()
    os.environ.update(job["env"])
    os.chdir(job["folder"])
    try:
        if (file := job.get("file")) is not None:
            sys.argv = [file]
            code = compile(Path(file).read_text(), str(Path(file).resolve()), "exec")
            exec(code, {"__name__": "__main__", "__file__": file})
        else:
            sys.argv = ["relight", *job["command"]]
            main()
    except SystemExit as left:
        return left.code if isinstance(left.code, int) else int(left.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0


if __name__ == "__main__":
    serve()
