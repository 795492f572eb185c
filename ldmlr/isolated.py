"""Reading what others wrote in a process with limits: a damaged or hostile file ends that process alone.

Libraries that read binary formats loop for ever, crash or ask for all memory on some damaged files. A check
beforehand cannot find every such file, but the operating system bounds a process: seconds of computing,
memory, and the time altogether. `call` runs a function there and returns what it returns.

A server is started with the first call and forks a process for each: it has one thread, so that a fork is
safe (this process may have many), and a call costs milliseconds instead of a start of Python. Arguments and
results pass as JSON: nothing that comes out of a reading process can be more than text and numbers.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import importlib
import inspect
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from ldmlr.boundary import boundary
from ldmlr.errors import InputError, LdmlrError, UsageError
from ldmlr.remote import as_path

P = ParamSpec("P")
R = TypeVar("R")

# What a file of no size may cost, and each byte of it: far above what a sound one does.
SECONDS, SECONDS_PER_BYTE = 60.0, 2e-6
MEMORY, MEMORY_PER_BYTE = 4 << 30, 16
# A process that waits does not compute: the time altogether is bounded as well.
WAITING = 20.0

# The folders that are searched for imports come from this process; Python's own variables do not.
_START = "import sys; sys.path[:] = sys.argv[1:]; from ldmlr.isolated import serve; serve()"
_LONGEST_REPLY = 256 << 20
# Bytes that a pipe takes at once, or not at all.
_PIPE = 4096
_ERRORS = {kind.__name__: kind for kind in (LdmlrError, InputError, UsageError)}
_inside = False


class Ended(Exception):
    """A reading process ended without an answer; the message says how."""


def inside() -> bool:
    """Tell whether this is a process with limits."""
    return _inside


def limits(size: int) -> dict[str, float]:
    """Return what reading so many bytes may take: ``seconds`` of computing, and ``memory`` in bytes."""
    return {
        "seconds": SECONDS + SECONDS_PER_BYTE * size,
        "memory": MEMORY + MEMORY_PER_BYTE * size,
    }


def size_of(path: str | Path) -> int:
    """Return the bytes of a file, or of the files in a folder; 0 where nothing is."""
    path = as_path(path)
    files = path.rglob("*") if path.is_dir() else [path]
    found = 0
    for file in files:
        with contextlib.suppress(OSError, ValueError):
            found += os.stat(file).st_size
    return found


def call(
    function: Callable[..., Any], *args: Any, path: str | Path, size: int | None = None, **kwargs: Any
) -> Any:
    """Run a function in a process with limits.

    Parameters
    ----------
    function
        Of a module of this package. What it returns must be plain data; it may raise `LdmlrError`.
    path
        The file it reads, for messages; its size sets the limits.
    size
        Bytes, if they are not those of the file.
    args, kwargs
        Plain data and paths.

    Raises
    ------
    InputError
        The process was ended by a limit or a crash, or what the function raises.
    """
    bounds = limits(size_of(path) if size is None else size)
    try:
        return _server.ask(function, args, kwargs, bounds)
    except Ended as error:
        raise InputError(
            f"{path}: reading it {error}; it is damaged, or made to do harm: get it again from where it comes"
        ) from None


def bounded(
    what: str, encode: Callable[[Any], Any], decode: Callable[..., R], more: tuple[str, ...] = ()
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make calls of a function, whose first argument is the file to read, run in a process with limits.

    Whatever it raises there becomes one line that names the file, see `ldmlr.boundary`.

    Parameters
    ----------
    what
        What the file should be, for messages.
    encode
        From the result to plain data, there.
    decode
        From plain data and the arguments to the result, here.
    more
        Parameters that name other files it reads.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        first = next(iter(signature.parameters))

        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            given = signature.bind(*args, **kwargs).arguments
            if _inside:
                with boundary(str(given[first]), what):
                    return function(*args, **kwargs)
            size = sum(size_of(given[name]) for name in (first, *more) if given.get(name) is not None)
            found = call(wrapper, *args, path=given[first], size=size, **kwargs)
            return decode(found, *args, **kwargs)

        wrapper.encode = encode  # type: ignore[attr-defined]
        return wrapper

    return decorate


class _Server:
    """The process that forks readers; one for each process that asks."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self.lock = threading.Lock()

    def ask(self, function: Callable[..., Any], args: Any, kwargs: Any, bounds: dict[str, float]) -> Any:
        job = {
            "function": [function.__module__, function.__qualname__], "args": args, "kwargs": kwargs,
            "folder": os.getcwd(), **bounds,
        }  # fmt: skip
        line = json.dumps(job, default=_plain).encode() + b"\n"
        with self.lock:
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                for start in range(0, len(line), _PIPE):
                    process.stdin.write(line[start : start + _PIPE])
                reply = b""
                while not reply.endswith(b"\n") and (block := process.stdout.read(1 << 16)):
                    reply += block
            except BaseException:
                self.stop()
                raise
            if not reply.endswith(b"\n"):
                self.stop()
                raise Ended("ended the process that reads")
        return _unpacked(json.loads(reply))

    def _started(self) -> subprocess.Popen[bytes]:
        if self.process is None or self.process.poll() is not None:
            # One thread each: the server forks.
            few = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-W", "ignore", "-c", _START, *sys.path],
                bufsize=0, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, **few},
            )  # fmt: skip
        return self.process

    def stop(self) -> None:
        """End the server and the reader it has; what that was writing it removes."""
        process, self.process = self.process, None
        if process is None:
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def forget(self) -> None:
        """Leave the server to the process that this one was forked from."""
        process, self.process = self.process, None
        self.lock = threading.Lock()
        if process is not None:
            process.returncode = 0
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()  # unbuffered: nothing of the other process's is written


_server = _Server()
atexit.register(_server.stop)
os.register_at_fork(after_in_child=_server.forget)


def _plain(value: Any) -> Any:
    """Turn paths into text and NumPy's numbers into Python's."""
    return value.item() if hasattr(value, "item") else os.fspath(value)


def _unpacked(reply: dict[str, Any]) -> Any:
    """Return the value of a reply, or raise what it tells of."""
    if "value" in reply:
        return reply["value"]
    if "error" in reply:
        raise _ERRORS[reply["error"]](reply["message"])
    if reply.get("interrupted"):
        raise KeyboardInterrupt
    raise Ended(reply["ended"])


# --- the server ----------------------------------------------------------------------------------


def serve() -> None:
    """Take jobs from standard input, one a line, and answer each on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pending = b""
    while True:
        block = os.read(0, 1 << 16)
        if not block:
            return
        pending += block
        while b"\n" in pending:
            line, _, pending = pending.partition(b"\n")
            reply = _run(json.loads(line))
            sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
            sys.stdout.buffer.flush()


def _run(job: dict[str, Any]) -> dict[str, Any]:
    # Imported here once: the readers have it then, and say what is wrong with it.
    with contextlib.suppress(Exception):
        importlib.import_module(job["function"][0])
    read_end, write_end = os.pipe()
    reader = os.fork()
    if not reader:
        status = 1
        try:
            os.close(read_end)
            _work(job, write_end)
            status = 0
        finally:
            os._exit(status)
    os.close(write_end)
    text, late = _answer(read_end, job["seconds"] * WAITING)
    os.close(read_end)
    if late:
        _end(reader)
        return {"ended": f"took more than {job['seconds'] * WAITING:,.0f} s"}
    _, status = os.waitpid(reader, 0)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number == signal.SIGXCPU:
            return {"ended": f"took more than {job['seconds']:,.0f} s of computing"}
        return {"ended": f"ended the process that reads ({signal.Signals(number).name})"}
    try:
        found: dict[str, Any] = json.loads(text)
    except ValueError:
        return {"ended": "ended the process that reads"}
    return found


def _answer(read_end: int, seconds: float) -> tuple[bytes, bool]:
    """Return what a reader writes, and whether it was too late; exit if nobody asks any more."""
    parts: list[bytes] = []
    length, until = 0, time.monotonic() + seconds
    while True:
        ready, _, _ = select.select([read_end, 0], [], [], max(0.0, until - time.monotonic()))
        if read_end in ready:
            block = os.read(read_end, 1 << 16)
            length += len(block)
            if not block or length > _LONGEST_REPLY:
                return b"".join(parts), False
            parts.append(block)
        elif ready:
            # One job at a time: what can be read is the end of the asking process.
            return b"", True
        else:
            return b"", True


def _end(reader: int) -> None:
    """End a reader: asked to at first, so that it removes what it was writing."""
    os.kill(reader, signal.SIGTERM)
    for _ in range(100):
        if os.waitpid(reader, os.WNOHANG)[0]:
            return
        time.sleep(0.02)
    os.kill(reader, signal.SIGKILL)
    os.waitpid(reader, 0)


def _work(job: dict[str, Any], write_end: int) -> None:
    """Do a job in this process, which is a reader, and write the reply."""
    global _inside
    _inside = True
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    os.dup2(2, 1)  # nothing that is printed gets among the replies
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    try:
        _set_limits(job["seconds"], job["memory"])
        os.chdir(job["folder"])
        module, name = job["function"]
        function: Any = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
        found = function(*job["args"], **job["kwargs"])
        encode = getattr(function, "encode", None)
        reply = {"value": found if encode is None else encode(found)}
        text = json.dumps(reply)
    except LdmlrError as error:
        # A kind of its own is no more than the one it is of: its attributes do not pass.
        kind = next(kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS)
        text = json.dumps({"error": kind, "message": error.message})
    except MemoryError:
        text = json.dumps({"ended": f"takes more than {job['memory'] / 2**30:,.1f} GiB of memory"})
    except KeyboardInterrupt:
        text = json.dumps({"interrupted": True})
    except OSError as error:
        text = json.dumps({"ended": f"failed ({error.strerror or error})"})
    except Exception as error:
        lines = str(error).strip().splitlines()
        text = json.dumps({"ended": f"failed ({type(error).__name__}: {lines[0][:160] if lines else ''})"})
    with os.fdopen(write_end, "wb") as pipe:
        pipe.write(text.encode())


def _set_limits(seconds: float, memory: float) -> None:
    """Bound computing time and memory of this process, and let it leave no image of itself."""
    for kind, value in (
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_DATA, int(memory)),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (allowed, hard))
