"""Runs of `distk` in forks of one process that has imported torch already, so that short ones are not all start-up.

The process that forks does nothing else: it has imported what its runs will, computed nothing, and so has one thread,
as forking asks for (from Python 3.12 on, a process with several warns). Where it has several, or the system knows no
fork, `begun` gives None and runs are started as usual. It is told runs by lines of JSON on its standard input and says
on its standard output which began and ended; it ends, and its runs are asked to save and stop, when its input does.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from distk.cli import main
from distk.training.parents import end_with_parent

READY = "ready"


class Server:
    """The forking process, from the side that asks it for runs."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._ended: dict[int, int] = {}
        assert process.stdin is not None
        assert process.stdout is not None
        self._asks, self._answers = process.stdin, process.stdout
        self._rest = b""

    def begin(self, arguments: Sequence[str], said: Path) -> Run:
        """Start `distk ARGUMENTS` in a process group of its own, its stderr appended to the file `said`.

        Raises OSError where the server is gone.
        """
        self._asks.write(json.dumps({"arguments": list(arguments), "said": str(said)}).encode() + b"\n")
        self._asks.flush()
        while True:
            told = self._told(wait=True)
            if told is None:
                raise BrokenPipeError("the process that starts runs is gone")
            if "began" in told:
                return Run(self, int(told["began"]))

    def code(self, pid: int) -> int | None:
        """How a run ended, as `Popen.returncode`; None while it runs."""
        while pid not in self._ended and self._told(wait=False) is not None:
            pass
        if pid not in self._ended and self.process.poll() is not None:
            return -signal.SIGKILL  # nobody is left who could say it
        return self._ended.get(pid)

    def _told(self, wait: bool) -> dict[str, Any] | None:
        """The next line of the server; None where there is none (yet). Ends of runs are noted."""
        os.set_blocking(self._answers.fileno(), wait)
        while b"\n" not in self._rest:
            try:
                more = os.read(self._answers.fileno(), 1 << 16)
            except BlockingIOError:
                return None
            if not more:
                return None
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        told: dict[str, Any] = json.loads(line)
        if "ended" in told:
            self._ended[int(told["ended"])] = int(told["code"])
        return told

    def close(self) -> None:
        """End the server; a run that still goes is asked to save and stop."""
        with contextlib.suppress(OSError):
            self._asks.close()
        self.process.wait()
        self._answers.close()


class Run:
    """A run in a fork, with what of `subprocess.Popen` its owner needs."""

    def __init__(self, server: Server, pid: int) -> None:
        self.server, self.pid = server, pid

    @property
    def returncode(self) -> int | None:
        """As of `subprocess.Popen`."""
        return self.poll()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.server.code(self.pid)

    def send_signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def wait(self) -> None:
        """Wait until it has ended."""
        while self.poll() is None and self.server._told(wait=True) is not None:
            pass


def begun(environment: Mapping[str, str], modules: Sequence[str]) -> Server | None:
    """A server whose runs have this environment and these modules imported; None where it cannot be had."""
    if sys.platform != "linux":
        return None
    process = subprocess.Popen(
        [sys.executable, "-m", "distk.training.forks", *modules],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=dict(environment),
        process_group=0,
        preexec_fn=end_with_parent,
    )
    server = Server(process)
    told = server._told(wait=True)
    if told is not None and READY in told and told[READY]:
        return server
    process.kill()
    server.close()
    return None


# The server's side


def serve(asks: IO[bytes], answers: int) -> None:
    """Fork for each line; say what began and ended, until there are no more lines."""
    awake, wake = os.pipe()
    os.set_blocking(awake, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)

    def say(told: dict[str, Any]) -> None:
        os.write(answers, json.dumps(told).encode() + b"\n")

    say({READY: threads() == 1})
    rest = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(asks, selectors.EVENT_READ)
        waiting.register(awake, selectors.EVENT_READ)
        while True:
            for key, _ in waiting.select():
                if key.fd == awake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(awake, 1 << 16)
                    _reap(say)
                    continue
                more = os.read(asks.fileno(), 1 << 16)
                if not more:
                    return
                *lines, rest = (rest + more).split(b"\n")
                for line in lines:
                    asked = json.loads(line)
                    pid = os.fork()
                    if pid == 0:
                        signal.set_wakeup_fd(-1)
                        for descriptor in (awake, wake):  # 0 and 1, the server's own, are replaced
                            os.close(descriptor)
                        _run(asked["arguments"], asked["said"])
                    say({"began": pid})


def _reap(say: Any) -> None:
    """Tell of every run that ended."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        say({"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _run(arguments: list[str], said: str) -> None:
    """Be `distk ARGUMENTS`, in the child; never returns."""
    code = 1
    try:
        os.setpgid(0, 0)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        end_with_parent()
        nowhere = os.open(os.devnull, os.O_RDWR)
        told = os.open(said, os.O_WRONLY | os.O_APPEND)
        for source, target in ((nowhere, 0), (nowhere, 1), (told, 2)):
            os.dup2(source, target)
        sys.argv = ["distk", *arguments]
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def threads() -> int:
    """Threads of this process, those of libraries included."""
    return len(os.listdir("/proc/self/task"))


if __name__ == "__main__":
    for module in sys.argv[1:]:
        importlib.import_module(module)
    serve(sys.stdin.buffer, sys.stdout.fileno())
