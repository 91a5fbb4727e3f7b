"""Writes to the share and reads from it as given users, and tells what went wrong, as one JSON object.

Argument: a JSON object with `do` (look, write, read or remove), `dir`, `node`, `token`, `uids`, `gid` (root's is 0),
`nodes` to read (NODE-UID to token) or whose files to remove, and `seconds`. Each user's part runs in a process of its own that is left behind when the file
system does not answer: a process that hangs in the kernel cannot be ended, and must not hang the deployment.
Runs on the node, with any Python from 3.7 on.
"""  # noqa: INP001  (sent to nodes, never imported)

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import stat
import sys
import time
from pathlib import Path
from typing import Any

PREFIX = ".hakuriver-write-test-"
HANGS = "it does not answer"


def main() -> None:
    order: dict[str, Any] = json.loads(sys.argv[1])
    root = Path(order["dir"])
    problems, done = run(order, root)
    sys.stdout.write(json.dumps({"problems": problems, "wrote": done, "mount": mount_of(root)}))


def run(order: dict[str, Any], root: Path) -> tuple[list[str], list[str]]:
    """What the users met, without repeating what several met alike; and the names of those that met nothing."""
    found: dict[str, None] = {}
    done = []
    for name in (
        order["nodes"] if order["do"] == "remove" else [f"{order['node']}-{uid}" for uid in order["uids"]]
    ):
        uid = int(name.rpartition("-")[2])
        problems = as_user(order, root, name, order["gid"] if uid else 0)
        found.update(dict.fromkeys(problems))
        if not problems:
            done.append(name)
    return list(found), done


def as_user(order: dict[str, Any], root: Path, name: str, gid: int) -> list[str]:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        answer = in_child(order, root, name, gid)
        os.write(writing, json.dumps(answer).encode())
        os._exit(0)
    os.close(writing)
    # A reader waits for others by itself; the rest is for a file system that is slow.
    ready, _, _ = select.select([reading], [], [], order["seconds"] + 10)
    text = os.read(reading, 65536) if ready else b""
    os.close(reading)
    if not ready:
        os.kill(child, signal.SIGKILL)
        return [HANGS]
    os.waitpid(child, 0)
    if not text:
        return [f"the test as uid {name.rpartition('-')[2]} was ended from outside"]
    answers: list[str] = json.loads(text)
    return answers


def in_child(order: dict[str, Any], root: Path, name: str, gid: int) -> list[str]:
    uid = int(name.rpartition("-")[2])
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    try:
        if (uid, gid) != (os.getuid(), os.getgid()):
            os.setgroups([])
            os.setgid(gid)
            os.setuid(uid)
        os.umask(0o022)
        if order["do"] == "look":
            return [] if stat.S_ISDIR(root.stat().st_mode) else ["it is not a folder"]
        if order["do"] == "read":
            return read(order, root)
        own = root / f"{PREFIX}{name}"
        if order["do"] == "remove":
            remove(own)
            return []
        return write(own, order["token"], uid)
    except OSError as error:
        return [reason(error)]


def write(own: Path, token: str, uid: int) -> list[str]:
    """As the daemons do: a new file, to disk, renamed over the old one."""
    try:
        new = own.with_name(own.name + ".new")
        remove(new)
        with new.open("x") as stream:
            stream.write(token)
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(own)
    except OSError as error:
        return [f"uid {uid} cannot write: {reason(error)}"]
    return []


def read(order: dict[str, Any], root: Path) -> list[str]:
    give_up = time.monotonic() + order["seconds"]
    missing = dict(order["nodes"])
    while True:
        for name, token in list(missing.items()):
            if sees(root / f"{PREFIX}{name}", token):
                del missing[name]
        if not missing or time.monotonic() > give_up:
            break
        time.sleep(0.1)
    blind = sorted({name.rpartition("-")[0] for name in missing})
    return [f"it does not show what {', '.join(blind)} wrote"] if blind else []


def sees(path: Path, token: str) -> bool:
    try:
        return path.read_text() == token
    except OSError:
        return False


def remove(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.unlink()


def reason(error: OSError) -> str:
    return error.strerror or str(error)


def mount_of(root: Path) -> dict[str, str]:
    """What is mounted where the path lies, told by the kernel's table: nothing is touched that could hang."""
    best = {"target": "", "source": "", "shown": "", "type": ""}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        target = left.split()[4].encode().decode("unicode_escape")
        under = target == "/" or root == Path(target) or Path(target) in root.parents
        if under and len(target) >= len(best["target"]):
            kind, source = right.split()[:2]
            part = left.split()[3]
            shown = source if part == "/" else f"{source}[{part}]"
            best = {"target": target, "source": source, "shown": shown, "type": kind}
    return best


if __name__ == "__main__":
    main()
