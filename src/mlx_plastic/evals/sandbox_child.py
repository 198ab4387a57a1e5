"""The child of `sandbox`: a script by itself that imports nothing of ours, run with -I -S in an empty folder.

    sandbox_child.py ROOT ROOM CPU_S WALL_S MEMORY_MB FILE_KB     (a word on stdin)

Runs ROOT/program.py and then ROOT/tests.py in one namespace, and writes into ROOT/done: the word, or the name
of an exception; and which of its layers could be set up. The program runs in a thread of its own, from whose
frames the word cannot be reached: only the end of the tests can write it.
"""

from __future__ import annotations

import ast
import os
import sys
import threading
from typing import Any

STACK_BYTES = 64 << 20  # of the thread: a deep recursion ends in RecursionError, not in a crash


def limit(cpu_s: int, memory_mb: int, file_kb: int) -> None:
    import resource

    for what, value in (
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_AS, memory_mb << 20),
        (resource.RLIMIT_FSIZE, file_kb << 10),
        (resource.RLIMIT_NOFILE, 32),
        (resource.RLIMIT_CORE, 0),
    ):
        try:
            resource.setrlimit(what, (value, value))
        except (ValueError, OSError):  # macOS has no limit on memory
            continue
    del sys.modules["resource"]


def landlock(room: str, readable: tuple[str, ...]) -> bool:
    """Ask the kernel to let nothing be read but `readable`, nothing written but in the room; True if it does.

    Source: the kernel's userspace-api/landlock; Linux 5.13 and later.
    """
    import ctypes
    import struct

    libc = ctypes.CDLL(None, use_errno=True)
    create, add, restrict, no_new_privileges = 444, 445, 446, 38
    version = libc.syscall(create, None, 0, 1)
    if version < 1:
        return False
    every = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    attributes = struct.pack("=QQQ", every, 3 if version >= 4 else 0, 3 if version >= 6 else 0)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = libc.syscall(create, ctypes.c_char_p(attributes), size, 0)
    if rules < 0:
        return False
    read_files, read = 1 << 2, 1 << 2 | 1 << 3
    inside = read | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | (1 << 14 if version >= 3 else 0)
    for path, allowed in ((room, inside), *((path, read) for path in readable)):
        try:
            place = os.open(path, os.O_PATH)
        except OSError:
            continue
        allowed = allowed if os.path.isdir(path) else read_files
        libc.syscall(add, rules, 1, ctypes.c_char_p(struct.pack("=Qi", allowed, place)), 0)
        os.close(place)
    libc.prctl(no_new_privileges, 1, 0, 0, 0)
    held = libc.syscall(restrict, rules, 0) == 0
    os.close(rules)
    return bool(held)


def guard(room: str, readable: tuple[str, ...]) -> None:
    """Deny, from now on and for good, all that a program does not need."""
    denied = (
        "socket.", "ctypes.", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "os.startfile",
        "os.kill", "os.putenv", "os.unsetenv", "os.setxattr", "os.getxattr", "os.listxattr", "os.removexattr",
        "os.mkfifo", "os.mknod", "subprocess.", "pty.", "signal.pthread_kill", "resource.", "fcntl.",
        "webbrowser.", "urllib.", "http.", "ftplib.", "smtplib.", "imaplib.", "poplib.", "syslog.",
        "sqlite3.enable_load_extension", "sqlite3.load_extension", "sys.addaudithook", "sys._current_frames",
        "sys.setprofile", "sys.settrace", "gc.", "shutil.chown", "cpython.remote_debugger_script",
    )  # fmt: skip
    touching = (
        "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.chmod", "os.chown", "os.lchown", "os.link",
        "os.symlink", "os.truncate", "os.utime", "os.chflags", "shutil.", "tempfile.", "os.chdir",
        "os.fchdir",
    )  # fmt: skip
    looking = ("os.listdir", "os.scandir", "os.walk", "os.fwalk", "glob.", "pathlib.")
    modules = ("_posixsubprocess", "_ctypes", "_multiprocessing", "_posixshmem", "resource", "_testcapi")
    flags_of_writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    realpath, fsdecode, kind, sep, path_like = os.path.realpath, os.fsdecode, isinstance, os.sep, os.PathLike
    file_refused, module_refused = PermissionError, ImportError

    def inside(path: Any, folders: tuple[str, ...]) -> bool:
        if path is None or kind(path, int):
            return path is None or path < 3
        whole = realpath(fsdecode(path))
        return any(whole == folder or whole.startswith(folder + sep) for folder in folders)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = args
            writes = (
                bool(flags & flags_of_writing) if kind(flags, int) else any(c in (mode or "") for c in "wax+")
            )
            if not inside(path, (room,) if writes else (room, *readable)):
                raise file_refused("files outside the room are not for programs")
        elif event == "import":
            if args[0] in modules or (args[1] and not inside(args[1], readable)):
                raise module_refused(f"{args[0]} is not for programs")
        elif event.startswith(denied):
            raise file_refused(f"{event} is not for programs")
        elif event.startswith(looking):
            if not inside(args[0] if args else None, (room, *readable)):
                raise file_refused(f"{event} outside the room is not for programs")
        elif event.startswith(touching) and not all(
            inside(path, (room,)) for path in args if kind(path, (str, bytes, path_like))
        ):
            raise file_refused(f"{event} outside the room is not for programs")

    sys.addaudithook(hook)


def run(program: str, tests: str, ended: list[str]) -> None:
    """Both in one namespace; `ended` gets the name of the exception that was the end, if one was."""
    try:
        space: dict[str, Any] = {"__name__": "__main__", "_": None}
        tree = ast.parse(program)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, "program.py", "exec"), space)
        if isinstance(last, ast.Expr):
            space["_"] = eval(compile(ast.Expression(last.value), "program.py", "eval"), space)
        exec(compile(tests, "tests.py", "exec"), space)
        sys.stdout.flush()
    except BaseException as error:  # SystemExit, too: the tests have to come to their end
        ended.append(type(error).__name__)


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def main() -> None:
    root, room, cpu_s, _, memory_mb, file_kb = sys.argv[1:]
    word = sys.stdin.readline().strip()
    program, tests = _read(os.path.join(root, "program.py")), _read(os.path.join(root, "tests.py"))
    done = os.open(os.path.join(root, "done"), os.O_WRONLY | os.O_CREAT, 0o600)
    seek, write, cut, leave = os.lseek, os.write, os.ftruncate, os._exit
    sys.argv = ["program.py"]
    limit(int(cpu_s), int(memory_mb), int(file_kb))
    room, library = os.path.realpath(room), os.path.realpath(os.path.dirname(os.__file__))
    readable = tuple({library, *(os.path.realpath(path) for path in sys.path if os.path.exists(path))})
    shared = (*readable, "/usr/lib", "/usr/lib64", "/lib", "/lib64", "/usr/local/lib", "/etc/ld.so.cache")
    held = sys.platform == "linux" and landlock(room, shared)
    for name in [m for m in sys.modules if m.partition(".")[0] in ("ctypes", "_ctypes", "struct")]:
        del sys.modules[name]
    ended: list[str] = []
    threading.stack_size(STACK_BYTES)
    thread = threading.Thread(target=run, args=(program, tests, ended))
    guard(room, readable)
    thread.start()
    thread.join()
    said = f"{ended[0] if ended else word}\n{'landlock' if held else ''}".encode()
    seek(done, 0, 0)
    cut(done, 0)
    write(done, said[:200])
    leave(0)


if __name__ == "__main__":
    main()
