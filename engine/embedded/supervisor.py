"""A stand-alone program that runs one server and ends it when the process that asked for it is gone.

    supervisor.py PARENT_PID STOP_SIGNAL GRACE_S UID:GID|- COMMAND...

stdin is a pipe that only the parent holds: a line with a number replaces GRACE_S, end-of-file asks to stop.
stdout carries one line, the server's pid; stderr is the log of both. The exit code is the server's.
Imports the standard library only, so that it starts in 20 ms under `python -I -S` and outlives a broken installation.
"""

import contextlib
import ctypes
import os
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
# Python ignores SIGPIPE and SIGXFSZ, and exec would keep that.
CLEARED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD, signal.SIGQUIT, *STOPPING)
ORPHANS_S = 1.0


def main(arguments: list[str]) -> int:
    parent, stop_signal, grace_s, owner, *command = arguments
    # A parent that blocks or ignores signals passes that on; the server must be reachable all the same.
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    wake, wake_end = os.pipe()
    os.set_blocking(wake_end, False)
    signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, *STOPPING):
        signal.signal(number, lambda *_: None)
    linux_prctl(PR_SET_CHILD_SUBREAPER, 1)
    server = spawn(command, owner, signal.Signals(int(stop_signal)))
    with contextlib.suppress(OSError):  # when the parent is gone already, stdin says so
        os.write(1, b"%d\n" % server)
    os.close(1)
    code = watch(server, signal.Signals(int(stop_signal)), float(grace_s), int(parent), wake)
    sweep()
    return code if code >= 0 else 128 - code


def linux_prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def spawn(command: list[str], owner: str, death_signal: signal.Signals) -> int:
    """Start the command as `uid:gid` (`-`: as we are), tied to our own life."""
    supervisor = os.getpid()
    # Between fork and SIG_DFL our own handlers, which do nothing, would swallow a stop signal to the child.
    signal.pthread_sigmask(signal.SIG_BLOCK, CLEARED)
    server = os.fork()
    if server:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        return server
    try:
        os.setpgid(0, 0)  # so that a kill reaches what the command starts (initdb runs a shell that runs postgres)
        os.umask(0o077)
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(2, 1)
        signal.set_wakeup_fd(-1)
        for number in CLEARED:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        if owner != "-":
            uid, gid = owner.split(":")
            os.setgroups([])
            os.setgid(int(gid))
            os.setuid(int(uid))
        linux_prctl(PR_SET_PDEATHSIG, death_signal)  # after setuid, which clears it
        if os.getppid() != supervisor:  # it died before prctl could tell us
            os._exit(1)
        os.execv(command[0], command)
    except BaseException as error:
        os.write(2, f"supervisor: cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def watch(server: int, stop_signal: signal.Signals, grace_s: float, parent: int, wake: int) -> int:
    """Wait for the server's end; once asked to stop, signal it ever harder until `grace_s` is over."""
    steps: list[tuple[float, signal.Signals]] | None = None
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(wake, select.POLLIN)
    while True:
        done, status = os.waitpid(server, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        now = time.monotonic()
        while steps and steps[0][0] <= now:
            send(server, steps.pop(0)[1])
        wait_s = max(0.0, steps[0][0] - now) if steps else 1.0
        ready = [fd for fd, _ in poll.poll(min(wait_s, 1.0) * 1000)]
        # A fork of the parent may keep the pipe's end open; then only a new parent pid tells that ours is gone.
        asked = os.getppid() != parent
        if wake in ready:
            asked |= any(number in STOPPING for number in os.read(wake, 512))
        if 0 in ready:
            text = read_stdin()
            if text:
                grace_s = float(text)
            else:
                asked = True
                poll.unregister(0)
        if asked and steps is None:
            now = time.monotonic()
            steps = [(now, stop_signal), (now + 0.7 * grace_s, signal.SIGQUIT), (now + grace_s, signal.SIGKILL)]


def read_stdin() -> bytes:
    try:
        return os.read(0, 64)
    except OSError:
        return b""


def send(server: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        if number is signal.SIGKILL:
            os.killpg(server, number)
        else:
            os.kill(server, number)


def sweep() -> None:
    """Wait for what a killed server left behind (as a subreaper we inherit it), then kill that too.

    PostgreSQL's backends leave by themselves when the postmaster is gone, unless they are busy.
    """
    started = time.monotonic()
    while True:
        try:
            orphan, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if orphan:
            continue
        waited_s = time.monotonic() - started
        if waited_s > 2 * ORPHANS_S:
            return
        if waited_s > ORPHANS_S:
            for pid in children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        time.sleep(0.005)


def children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as listing:
            return [int(pid) for pid in listing.read().split()]
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
