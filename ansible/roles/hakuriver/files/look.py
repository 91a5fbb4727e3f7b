"""Tells how files and units of a machine are, as one line of JSON. Changes nothing.

One argument, JSON: `paths` (what is told of each: kind, owner, group, mode, and a digest of what a file holds), `units`
(of systemd), `together` (files whose contents one digest is to tell), `lines` (files of which the first line is asked),
`texts` (files of which all is asked) and `accounts` (true: users and groups, with their fields as `getent` has them).
Standard library alone, any Python 3.6. There is no apostrophe in it, which a shell within a shell would multiply.
"""

import grp
import hashlib
import json
import os
import pwd
import stat
import subprocess
import sys

PROPERTIES = {
    "active": "ActiveState",
    "enabled": "UnitFileState",
    "reload": "NeedDaemonReload",
    "pid": "MainPID",
}


def main():
    asked = json.loads(sys.argv[1])
    together = asked.get("together", [])
    report = {
        "paths": {path: about(path) for path in asked.get("paths", [])},
        "units": {unit: about_unit(unit) for unit in asked.get("units", [])},
        "lines": {path: first_line(path) for path in asked.get("lines", [])},
        "texts": {path: text(path) for path in asked.get("texts", [])},
        "together": digest_of_all(together) if together else "",
        # Labels are for modules to judge, which know what each file is to have.
        "labels": os.path.exists("/sys/fs/selinux/enforce"),
    }
    if asked.get("accounts"):
        report["passwd"] = {one[0]: ["x", *map(str, one[2:])] for one in pwd.getpwall()}
        report["group"] = {one[0]: ["x", str(one[2]), ",".join(one[3])] for one in grp.getgrall()}
    print(json.dumps(report))


def about(path):
    """None where nothing is. A link to a folder counts as that folder, as it does for who sets the folder up."""
    try:
        state = os.lstat(path)
        if stat.S_ISLNK(state.st_mode):
            target = os.readlink(path)
            if not os.path.isdir(path):
                return {"kind": "link", "target": target}
            return dict(described("folder", os.stat(path)), target=target)
        if stat.S_ISDIR(state.st_mode):
            return described("folder", state)
        if stat.S_ISREG(state.st_mode):
            return dict(described("file", state), digest=digest(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        return {"kind": "unknown", "error": error.strerror}
    return {"kind": "other"}


def described(kind, state):
    return {
        "kind": kind,
        "owner": [str(state.st_uid), name_of(pwd.getpwuid, state.st_uid)],
        "group": [str(state.st_gid), name_of(grp.getgrgid, state.st_gid)],
        "mode": "%04o" % stat.S_IMODE(state.st_mode),
    }


def name_of(find, number):
    try:
        return find(number)[0]
    except KeyError:
        return ""


def digest(path):
    with open(path, "rb") as stream:
        return hashlib.sha256(stream.read()).hexdigest()


def digest_of_all(paths):
    """As `sha256sum PATHS | sha256sum` has it: one that is missing is left out."""
    lines = []
    for path in paths:
        try:
            lines.append("%s  %s\n" % (digest(path), path))
        except OSError:
            continue
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def about_unit(unit):
    """Its states, and the stamp that its process was started with."""
    command = ["systemctl", "show", "--property=" + ",".join(PROPERTIES.values()), unit]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    told = dict(
        line.split("=", 1) for line in done.stdout.decode("utf-8", "replace").splitlines() if "=" in line
    )
    found = {name: told.get(key, "") for name, key in PROPERTIES.items()}
    found["stamp"] = stamp(found.pop("pid"))
    return found


def stamp(pid):
    try:
        with open("/proc/%s/environ" % pid, "rb") as stream:
            for part in stream.read().split(b"\0"):
                if part.startswith(b"HAKURIVER_STAMP="):
                    return part.decode("ascii", "replace").split("=", 1)[1]
    except OSError:
        pass
    return ""


def first_line(path):
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.readline().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def text(path):
    """None for what is no file of text, or a link, which may lead to what others are not to read."""
    try:
        with os.fdopen(
            os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), encoding="utf-8"
        ) as stream:
            return stream.read() if stat.S_ISREG(os.fstat(stream.fileno()).st_mode) else None
    except (OSError, UnicodeDecodeError):
        return None


if __name__ == "__main__":
    main()
