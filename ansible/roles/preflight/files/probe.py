"""Tells of a machine what preflight judges, as one JSON object. Changes nothing, and waits for nothing for long.

One argument, JSON: `connect` (list of [name, address, port], and true where somebody has to listen already), `resolve`
(names), `ports` (numbers), `folders` (name to path), `share` (path), `runner` (path of a Runner's configuration), `gpus`
(folder of PCI devices), `python` (program), `account` (name), `seconds` (to wait for an answer). Standard library alone, any Python 3.6.
"""

import errno
import glob
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import threading
import time

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main():
    asked = json.loads(sys.argv[1])
    seconds = asked.get("seconds", 3)
    report = {
        "identity": identity(),
        "machine_id": first_line("/etc/machine-id"),
        "system": system(),
        "init": first_line("/proc/1/comm"),
        "systemd": os.path.isdir("/run/systemd/system"),
        "cgroup": cgroup(),
        "memory_mb": memory(),
        "python": python(asked.get("python") or "python3", seconds),
        "docker": docker(),
        "gpu": gpu(asked.get("gpus") or "/sys/bus/pci/devices"),
        "node": node(asked.get("runner", "")),
        "account": together(is_account, [asked["account"]], seconds)[0] if asked.get("account") else None,
        "ports": {str(port): listener(port) for port in asked.get("ports", [])},
        "folders": {name: folder(path) for name, path in asked.get("folders", {}).items()},
        "share": share(asked["share"], seconds) if asked.get("share") else None,
        "resolve": together(resolve, asked.get("resolve", []), seconds + 2),
    }
    answers = together(
        lambda one: connect(one[1], one[2], seconds), asked.get("connect", []), seconds * 2 + 2
    )
    report["connect"] = [
        {
            "name": one[0],
            "address": one[1],
            "port": one[2],
            "outside": len(one) > 3,
            "answer": answer or "silent",
        }
        for one, answer in zip(asked.get("connect", []), answers)
    ]
    report["passwd"], report["group"] = numbers("/etc/passwd"), numbers("/etc/group")
    print(json.dumps(report))


def together(function, values, seconds):
    """The function of all values at once, in their order; None for what did not answer in time."""
    answers = [None] * len(values)

    def call(at, value):
        answers[at] = function(value)

    threads = [threading.Thread(target=call, args=pair, daemon=True) for pair in enumerate(values)]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(0, end - time.monotonic()))
    return answers


def first_line(path):
    try:
        with open(path) as stream:
            return stream.readline().strip()
    except (OSError, UnicodeDecodeError):
        return ""


def identity():
    """The same for two names of one machine, and for them alone: containers differ in their namespaces."""
    parts = [first_line("/proc/sys/kernel/random/boot_id")]
    for kind in ("net", "pid"):
        try:
            parts.append(os.readlink("/proc/self/ns/" + kind))
        except OSError:
            parts.append("")
    return " ".join(parts)


def system():
    found = {}
    try:
        with open("/etc/os-release") as stream:
            for line in stream:
                key, mark, value = line.strip().partition("=")
                if mark:
                    found[key] = value.strip("\"'")
    except OSError:
        pass
    return {
        "id": found.get("ID", ""),
        "version": found.get("VERSION_ID", ""),
        "like": found.get("ID_LIKE", ""),
        "name": found.get("PRETTY_NAME", ""),
    }


def cgroup():
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        return {"version": "2", "memory": "memory" in first_line("/sys/fs/cgroup/cgroup.controllers").split()}
    unified = os.path.exists("/sys/fs/cgroup/unified/cgroup.controllers")
    version = "1, with an empty 2 beside it" if unified else "1"
    return {"version": version, "memory": os.path.isdir("/sys/fs/cgroup/memory")}


def memory():
    try:
        with open("/proc/meminfo") as stream:
            for line in stream:
                if line.startswith("MemTotal:"):
                    return int(line.split()[1]) // 1024
    except (OSError, ValueError):
        pass
    return 0


def python(program, seconds):
    """Its version as `3.11.2`; empty when it is not there."""
    found = shutil.which(program, path=SEARCH)
    if not found:
        return {"program": program, "path": "", "version": ""}
    command = [found, "-c", "import platform; print(platform.python_version())"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False, timeout=seconds + 5
        )
        version = done.stdout.decode("ascii", "replace").strip()
    except (OSError, subprocess.TimeoutExpired):
        version = ""
    return {"program": program, "path": found, "version": version}


def docker():
    return {
        "engine": bool(shutil.which("dockerd", path=SEARCH)),
        "kind": docker_kind(),
        "rootless": rootless(),
        "settings": settings("/etc/docker/daemon.json"),
        "podman_socket": os.path.realpath("/var/run/docker.sock").startswith("/run/podman/"),
    }


def settings(path):
    """Whether the engine's settings can be read, or there are none."""
    try:
        with open(path, encoding="utf-8") as stream:
            return isinstance(json.loads(stream.read().strip() or "{}"), dict)
    except FileNotFoundError:
        return True
    except (OSError, ValueError):
        return False


def docker_kind():
    """What `docker` is when it is not Docker's: `podman`, `snap` or nothing."""
    program = shutil.which("docker", path=SEARCH + ":/snap/bin")
    if not program:
        return "snap" if os.path.isdir("/snap/docker") else ""
    real = os.path.realpath(program)
    if program.startswith("/snap/") or real.startswith("/snap/") or os.path.basename(real) == "snap":
        return "snap"
    if os.path.basename(real).startswith("podman"):
        return "podman"
    try:
        with open(real, "rb") as stream:
            head = stream.read(4096)
    except OSError:
        return ""
    return "podman" if head.startswith(b"#!") and b"podman" in head else ""


def rootless():
    """Sockets of engines that users run for themselves."""
    found = []
    for path in glob.glob("/run/user/*/docker.sock"):
        test = socket.socket(socket.AF_UNIX)
        test.settimeout(1)
        try:
            test.connect(path)
            found.append(path)
        except OSError:
            continue
        finally:
            test.close()
    return found


def gpu(folder):
    """How many display controllers of NVIDIA there are, and the driver's version where it is loaded."""
    count = 0
    for path in glob.glob(folder + "/*"):
        if first_line(path + "/vendor") == "0x10de" and first_line(path + "/class").startswith("0x03"):
            count += 1
    return {"count": count, "driver": first_line("/proc/driver/nvidia/version")}


def node(path):
    """The name of the node that the machine is already, as the Runner's configuration has it; empty when it is none."""
    section = ""
    try:
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("["):
                    section = line.strip()
                key, _, value = line.partition("=")
                if section == "[runner]" and key.strip() == "name":
                    return str(json.loads(value))
    except (OSError, ValueError):
        pass
    return ""


def listener(port):
    """Who listens at a TCP port: None, or pid, program, command line and unit, as far as can be seen."""
    inodes, owners = set(), set()
    loopback = True
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            with open(table) as stream:
                rows = [line.split() for line in stream][1:]
        except OSError:
            continue
        for row in rows:
            address, number = row[1].rsplit(":", 1)
            if row[3] == "0A" and int(number, 16) == port:
                inodes.add("socket:[%s]" % row[9])
                owners.add(int(row[7]))
                loopback = loopback and is_loopback(address)
    if not inodes:
        return None
    found = {"pid": 0, "program": "", "command": "", "unit": "", "loopback": loopback}
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        try:
            if os.readlink(path) in inodes:
                found.update(process(path.split("/")[2]))
                return found
        except OSError:
            continue
    # In a container even root may not look into the processes of others; the service of the socket's owner is seen.
    if 0 not in owners:
        services = {service for service in map(service_of, processes_of(owners)) if service}
        if len(services) == 1:
            found["unit"] = services.pop()
    return found


def processes_of(owners):
    found = []
    for path in glob.glob("/proc/[0-9]*"):
        try:
            if os.stat(path).st_uid in owners:
                found.append(path.split("/")[2])
        except OSError:
            continue
    return found


def is_loopback(address):
    return address in {"0100007F", "00000000000000000000000001000000"}


def process(pid):
    try:
        with open("/proc/%s/cmdline" % pid, "rb") as stream:
            command = stream.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
    except OSError:
        command = ""
    return {
        "pid": int(pid),
        "program": first_line("/proc/%s/comm" % pid),
        "command": command[:300],
        "unit": service_of(pid),
    }


def service_of(pid):
    """The systemd service that the process belongs to; empty for none."""
    unit = ""
    try:
        with open("/proc/%s/cgroup" % pid) as stream:
            for line in stream:
                for part in line.strip().split("/"):
                    if part.endswith(".service"):
                        unit = part
    except OSError:
        pass
    return unit


def folder(path):
    """Where it is, or the nearest folder above that is there: room, and whether it may be written."""
    place = path
    while not os.path.isdir(place) and place != "/":
        if os.path.lexists(place):
            return {"path": path, "place": place, "error": "it is not a folder"}
        place = os.path.dirname(place.rstrip("/")) or "/"
    try:
        state = os.statvfs(place)
    except OSError as error:
        return {"path": path, "place": place, "error": error.strerror}
    return {
        "path": path,
        "place": place,
        "free_mb": state.f_bavail * state.f_frsize // 2**20,
        "free_files": state.f_favail if state.f_files else None,
        "read_only": bool(state.f_flag & os.ST_RDONLY),
        "error": "",
    }


SHARE = """
import json, os, sys
path = sys.argv[1]
try:
    state = os.statvfs(path)
    os.listdir(path)
    print(json.dumps({"error": "", "read_only": bool(state.f_flag & os.ST_RDONLY), "writable": os.access(path, os.W_OK),
                      "mounted": os.path.ismount(path), "free_mb": state.f_bavail * state.f_frsize // 2**20}))
except OSError as error:
    print(json.dumps({"error": error.strerror, "errno": error.errno}))
"""


def share(path, seconds):
    """Asked by a process of its own: a file system that hangs holds whoever asks, and cannot be interrupted."""
    mounts = mount_of(path)
    child = subprocess.Popen(
        [sys.executable, "-c", SHARE, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    answer = {}

    def read():
        answer["text"] = child.communicate()[0]

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    reader.join(seconds + 2)
    if "text" not in answer:
        child.kill()
        return {"path": path, "error": "it does not answer", "hangs": True, "mount": mounts}
    report = json.loads(answer["text"].decode() or '{"error": "cannot be asked"}')
    report.update({"path": path, "mount": mounts, "hangs": False})
    report["stale"] = report.get("errno") == errno.ESTALE
    return report


def mount_of(path):
    """The mount that holds the path, as the kernel's table says it, without touching the path."""
    best = {"point": "", "kind": "", "source": "", "options": ""}
    try:
        with open("/proc/self/mounts") as stream:
            for line in stream:
                source, point, kind, options = line.split()[:4]
                point = point.replace("\\040", " ")
                inside = path == point or path.startswith(point.rstrip("/") + "/")
                if inside and len(point) >= len(best["point"]):
                    best = {"point": point, "kind": kind, "source": source, "options": options}
    except OSError:
        pass
    return best


def resolve(name):
    try:
        found = {info[4][0] for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
        return {"name": name, "addresses": sorted(found), "error": ""}
    except (OSError, UnicodeError) as error:
        return {"name": name, "addresses": [], "error": str(error)}


def connect(address, port, seconds):
    """`open`, `refused`, `silent` (nothing came back), `no way`, or `unknown name`."""
    try:
        socket.create_connection((address, port), timeout=seconds).close()
    except ConnectionRefusedError:
        return "refused"
    except socket.gaierror:
        return "unknown name"
    except socket.timeout:
        return "silent"
    except OSError as error:
        return "no way" if error.errno in {errno.EHOSTUNREACH, errno.ENETUNREACH} else "silent"
    return "open"


def is_account(name):
    """By the name service, which knows those of a directory."""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def numbers(path):
    """Name to number, of passwd or group; without the name service, which may hang."""
    found = {}
    try:
        with open(path) as stream:
            for line in stream:
                parts = line.split(":")
                if len(parts) > 2 and parts[2].isdigit():
                    found[parts[0]] = int(parts[2])
    except (OSError, UnicodeDecodeError):
        pass
    return found


if __name__ == "__main__":
    main()
