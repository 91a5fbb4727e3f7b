"""Tells what engine a node has and what runs in it, as one JSON object. Changes nothing.

Arguments: the socket, the settings file, the folder of PCI devices, and names of packages that shall be there. Runs on
the node, with any Python from 3.7 on.
"""  # noqa: INP001  (sent to nodes, never imported)

from __future__ import annotations

import grp
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator, cast  # noqa: UP035  (older Pythons of nodes)

TASK_LABEL = "hakuriver.runner"
SECONDS = 10.0
PLACES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def main() -> None:
    path, settings, pci, *packages = sys.argv[1:]
    dockerd = find("dockerd")
    report: dict[str, Any] = {
        "dockerd": dockerd or "",
        "owner": owner(dockerd) if dockerd else "",
        "shim": shim(),
        "rootless_sockets": [str(found) for found in Path("/run/user").glob("*/docker.sock")],
        "gpus": list(gpus(Path(pci))),
        "missing": [name for name in packages if not is_installed(name)],
        "members": members("docker"),
        "unit": unit("docker.service"),
        "apt_module": Path("/usr/lib/python3/dist-packages/apt").is_dir(),
        "answers": False,
        "why": "",
        **settings_of(Path(settings), Path(path).parent / "docker.pid"),
    }
    try:
        report.update(engine(path))
    except (OSError, ValueError, http.client.HTTPException) as error:
        report["why"] = str(error)
    sys.stdout.write(json.dumps(report))


def find(program: str) -> str | None:
    return shutil.which(program, path=os.environ.get("PATH", "") + ":" + PLACES)


def owner(program: str) -> str:
    """The package that a program is from, where dpkg or rpm know it."""
    for command in (["dpkg-query", "-S", program], ["rpm", "-qf", "--qf", "%{NAME}: ", program]):
        if find(command[0]):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
            if done.returncode == 0:
                return done.stdout.decode("utf-8", "replace").split(":")[0]
    return ""


def is_installed(package: str) -> bool:
    """Not where its version is asked for too, such as `docker.io=26.1`: that is for the package manager to judge."""
    for command in (
        ["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
        ["rpm", "-q", "--qf", "installed", package],
    ):
        if find(command[0]):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
            return done.returncode == 0 and done.stdout == b"installed"
    return False


def members(group: str) -> list[str]:
    try:
        return grp.getgrnam(group).gr_mem
    except KeyError:
        return []


def unit(name: str) -> list[str]:
    """Whether it runs and is started at boot, as systemd says it: `active` and `enabled` where all is well."""
    command = ["systemctl", "show", "--property=ActiveState", "--property=UnitFileState", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
    return sorted(line.partition("=")[2] for line in done.stdout.decode("utf-8", "replace").splitlines())


def shim() -> str:
    """What `docker` is when it is not Docker's: `podman`, `snap` or nothing."""
    program = find("docker") or shutil.which("docker", path="/snap/bin")
    if not program:
        return "snap" if Path("/snap/docker").is_dir() else ""
    real = Path(program).resolve()
    if program.startswith("/snap/") or str(real).startswith("/snap/") or real.name == "snap":
        return "snap"
    if real.name.startswith("podman"):
        return "podman"
    with real.open("rb") as stream:
        head = stream.read(4096)
    return "podman" if head.startswith(b"#!") and b"podman" in head else ""


def gpus(root: Path) -> Iterator[str]:
    """Addresses of NVIDIA's display controllers (PCI class 03xxxx)."""
    for folder in sorted(root.glob("*")):
        try:
            vendor = (folder / "vendor").read_text().strip()
            if vendor == "0x10de" and (folder / "class").read_text().startswith("0x03"):
                yield folder.name
        except OSError:
            continue


def settings_of(path: Path, pid_file: Path) -> dict[str, Any]:
    """The settings on disk, and in `loaded` those that the engine runs with, where it has not taken the former.

    The role writes `PATH.loaded` before it changes PATH. That says nothing any more once the engine was started after.
    """
    found: dict[str, Any] = {
        "settings": None,
        "settings_error": "",
        "loaded": None,
        "folder": "",
        "left": False,
    }
    if path.parent.is_dir():
        found["folder"] = f"{path.parent.stat().st_mode & 0o7777:04o}"
    try:
        found["settings"] = as_object(path)
    except FileNotFoundError:
        pass
    except ValueError as error:
        found["settings_error"] = str(error)
    loaded = path.with_name(path.name + ".loaded")
    found["left"] = loaded.exists()
    try:
        if pid_file.stat().st_mtime <= loaded.stat().st_mtime:
            found["loaded"] = as_object(loaded)
    except FileNotFoundError:
        pass
    except ValueError:
        found["loaded"] = {}
    return found


def as_object(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text(encoding="utf-8").strip() or "{}")
    if isinstance(value, dict):
        return value
    message = "it is not an object"
    raise ValueError(message)


def engine(path: str) -> dict[str, Any]:
    info, version = ask(path, "/info"), ask(path, "/version")
    containers = ask(path, "/containers/json")
    names = [(name_of(container), container.get("Labels") or {}) for container in containers]
    return {
        "answers": True,
        "version": version.get("Version", ""),
        "podman": any("podman" in part.get("Name", "").lower() for part in version.get("Components") or []),
        "rootless": any("rootless" in option for option in info.get("SecurityOptions") or []),
        "live_restore": bool(info.get("LiveRestoreEnabled")),
        "cgroup_driver": info.get("CgroupDriver", ""),
        "data_root": info.get("DockerRootDir", ""),
        "tasks": sorted(name for name, labels in names if TASK_LABEL in labels),
        "others": sorted(name for name, labels in names if TASK_LABEL not in labels),
        "fragile": sorted(fragile(path, containers)),
    }


def fragile(path: str, containers: list[dict[str, Any]]) -> Iterator[str]:
    """Those that the engine removes when it is started anew, live restore or not: the ones of `docker run --rm`."""
    for container in containers:
        try:
            details = ask(path, f"/containers/{container['Id']}/json")
        except ValueError:
            continue  # It has ended since it was listed.
        if (details.get("HostConfig") or {}).get("AutoRemove"):
            yield name_of(container)


def name_of(container: dict[str, Any]) -> str:
    return cast("str", container["Names"][0]).lstrip("/")


def ask(path: str, request: str) -> Any:
    connection = http.client.HTTPConnection("docker", timeout=SECONDS)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(SECONDS)
    try:
        connection.sock.connect(path)
        connection.request("GET", request)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.HTTPStatus.OK:
            message = f"{path} answers {answer.status}"
            raise ValueError(message)
        return json.loads(body.decode("utf-8"))
    finally:
        connection.close()


if __name__ == "__main__":
    main()
