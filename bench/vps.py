"""VPS: what the way through gateway and Runner costs, beside an OpenSSH server on this machine, in one run.

Transfers have no disk at either end, and programs there that cost next to nothing: what `head` takes is no matter in one image
and most of a core in another (busybox writes byte by byte). The server beside it runs in a mount namespace of its own, on a free port of the
loopback, with keys that are made for it.

Making a VPS is compared with what one would do by hand: a container of the same image with an sshd in it and a published port, until
that says its first byte. A container whose program prints a word and ends is told beside it: less can nobody do.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.report import Figure, at_least, at_most, median, say, spread
from support import engine
from support.cluster import Cluster, running
from support.commands import Commands
from support.ports import free_port
from support.waiting import until

NAME = "vps"
TITLE = "VPS: SSH through gateway and Runner, beside an OpenSSH server on this machine"

_ROUNDS = 5
_MEGABYTES = 200
_IDLE_SESSIONS = 30
_SOURCE = f"dd if=/dev/zero bs=65536 count={_MEGABYTES * 16} 2>/dev/null"
_TRANSFER_AIM, _SHELL_AIM, _CREATE_AIM = 0.6, 1.5, 1.5
_SSHD_CONFIG = """Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host
AuthorizedKeysFile {folder}/id.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin yes
"""
_PASSWD = "root:x:0:0::/root:/bin/sh\nsshd:x:1999:1999::/run/sshd:/bin/false\n"
_IMAGE_CONFIG = "HostKey /etc/ssh/host\nUsePAM no\nPidFile none\n"
_SSHD_START = """set -e
cp /etc/passwd {folder}/passwd
grep -q '^sshd:' {folder}/passwd || echo 'sshd:x:1999:1999::/run/sshd:/usr/sbin/nologin' >> {folder}/passwd
mount --bind {folder}/passwd /etc/passwd
mkdir -p /run/sshd
exec /usr/sbin/sshd -D -f {folder}/sshd_config
"""


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to a shell."""

    words: list[str]

    def run(self, command: str, **options: object) -> float:
        """Seconds that the command took."""
        start = time.perf_counter()
        subprocess.run([*self.words, command], check=True, **{"stdin": subprocess.DEVNULL, **options})  # type: ignore[call-overload]
        return time.perf_counter() - start

    def up(self) -> float:
        source = subprocess.Popen(["sh", "-c", _SOURCE], stdout=subprocess.PIPE)
        taken = self.run("cat > /dev/null", stdin=source.stdout)
        source.wait()
        return taken

    def down(self) -> float:
        return self.run(_SOURCE, stdout=subprocess.DEVNULL)


def measure(folder: Path) -> list[Figure]:
    if reason := engine.why_not():
        return [Figure("VPS", "-", note=f"left out: {reason}")]
    if not Path("/usr/sbin/sshd").exists() or os.geteuid() != 0:
        return [
            Figure("VPS", "-", note="left out: it takes root and an sshd to compare with (openssh-server)")
        ]
    key = folder / "id"
    for name in ("id", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    with running(Cluster(folder / "cluster", containers=True)) as cluster, _sshd(folder) as port:
        run = Commands({"HAKURIVER_CONFIG": str(cluster.config), "HOME": str(folder)})
        assert run("key", "add", f"{key}.pub").code == 0
        vps = _create(run, key)
        assert run("ssh", vps, "-i", str(key), "true").code == 0
        config = next((folder / "cluster/ssh").glob(f"config-{vps}-*"))
        ours = _Way(["ssh", "-F", str(config), f"{vps}.hakuriver"])
        trusting = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"]
        options = [word for each in trusting for word in ("-o", each)]
        theirs = _Way(["ssh", "-F", "none", "-i", str(key), "-p", str(port), *options, "root@127.0.0.1"])
        return [
            *_transfers(ours, theirs),
            _shells(ours, theirs),
            _memory(cluster, ours),
            *_creation(run, key, folder),
        ]


def _transfers(ours: _Way, theirs: _Way) -> list[Figure]:
    figures = []
    for what in ("up", "down"):
        say(f"transfers: {what}")
        pairs = [(getattr(ours, what)(), getattr(theirs, what)()) for _ in range(_ROUNDS)]
        ratio = median([their / our for our, their in pairs])
        speeds = [_MEGABYTES / median([pair[side] for pair in pairs]) for side in (0, 1)]
        note = f"{speeds[0]:.0f} and {speeds[1]:.0f} MiB/s; bound by asyncssh at gateway and Runner, and the client's two ssh"
        figures.append(at_least(f"transfer {what}, of sshd's speed", ratio, _TRANSFER_AIM, note=note))
    return figures


def _shells(ours: _Way, theirs: _Way) -> Figure:
    say("shells")
    pairs = [(ours.run("true"), theirs.run("true")) for _ in range(4 * _ROUNDS)]
    ratio = median([our / their for our, their in pairs])
    bound = "two key exchanges and logins, at gateway and Runner, and the engine's start of a program; sshd has one, and forks"
    note = f"{spread([our for our, _ in pairs], 'ms', 1000)}; bound by {bound}"
    return at_most("time to a shell, of sshd's", ratio, _SHELL_AIM, note=note)


def _memory(cluster: Cluster, ours: _Way) -> Figure:
    say("idle sessions")
    host = psutil.Process(cluster.host.pid)
    before = host.memory_info().rss
    sessions = [
        subprocess.Popen([*ours.words, "echo in; cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for _ in range(_IDLE_SESSIONS)
    ]
    try:
        for each in sessions:
            assert each.stdout is not None
            each.stdout.readline()
        used = (host.memory_info().rss - before) / _IDLE_SESSIONS
    finally:
        for each in sessions:
            each.kill()
            each.wait()
    bound = (
        "asyncssh's objects of a connection and its channel, and the WebSocket to the Runner with its buffers"
    )
    return Figure(
        "gateway's memory for an idle session, kB",
        f"{used / 1000:.0f}",
        note=f"n={_IDLE_SESSIONS}; bound by {bound}",
    )


def _creation(run: Commands, key: Path, folder: Path) -> list[Figure]:
    say("creation")
    ours, theirs, bare, asking = [], [], [], []
    with _image_with_sshd(folder) as image:
        for _ in range(2 * _ROUNDS):
            start = time.perf_counter()
            made = _create(run, key)
            ours.append(time.perf_counter() - start)
            assert run("vps", "kill", made).code == 0
            theirs.append(_docker_run(image))
            bare.append(_docker_run_of_a_word(image))
            start = time.perf_counter()
            assert run("vps", "list").code == 0
            asking.append(time.perf_counter() - start)
    note = (
        f"{spread(ours, 'ms', 1000)}; docker run of an image with sshd and a port, until its banner: {spread(theirs, 'ms', 1000)}; bound"
        f" by the engine's start of a container, at both, and by Python in the command: vps list takes {1000 * median(asking):.0f} ms"
    )
    word = f"{spread(bare, 'ms', 1000)} for docker run of a program that prints a word and ends: no sshd, no port"
    return [
        at_most("vps create --wait, of docker run", median(ours) / median(theirs), _CREATE_AIM, note=note),
        Figure("vps create --wait, of docker run of a word", f"{median(ours) / median(bare):.2f}", note=word),
    ]


def _create(run: Commands, key: Path) -> str:
    made = run("vps", "create", "--wait", "--public-key-file", f"{key}.pub")
    assert made.code == 0, made.stderr
    return made.stdout.strip()


@contextlib.contextmanager
def _image_with_sshd(folder: Path) -> Iterator[str]:
    """The image of the VPS, with this machine's sshd in it."""
    client = engine.client()
    base = next(tag for found in client.images.list() for tag in found.tags if engine.ENVIRONMENT in tag)
    linked = subprocess.run(["ldd", "/usr/sbin/sshd"], capture_output=True, text=True, check=True).stdout
    # Newer ones start a program for each session.
    files = [
        "/usr/sbin/sshd",
        *re.findall(r"/\S+\.so\S*", linked),
        *map(str, Path("/usr/lib/openssh").glob("sshd-*")),
    ]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", dereference=True) as archive:
        for name in files:
            archive.add(name)
        archive.add(folder / "host", "/etc/ssh/host")
        for name, text in {
            "/etc/passwd": _PASSWD,
            "/etc/ssh/sshd_config": _IMAGE_CONFIG,
            "/run/sshd/.keep": "",
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text.encode()))
    made = client.containers.create(base, "true")
    made.put_archive("/", content.getvalue())
    tag = "hakuriver-bench-sshd:latest"
    made.commit(*tag.split(":"))
    made.remove()
    try:
        yield tag
    finally:
        client.images.remove(tag, force=True)


def _docker_run(image: str) -> float:
    """Seconds until an sshd in a container of its own says its first byte at a published port."""
    port = free_port()
    words = [
        "--rm",
        "--init",
        "--publish",
        f"127.0.0.1:{port}:22",
        "--entrypoint",
        "/usr/sbin/sshd",
        image,
        "-D",
    ]
    start = time.perf_counter()
    made = _docker("run", "--detach", *words).strip()
    try:
        while not _says_ssh(port):
            assert time.perf_counter() - start < 30, "no sshd answers"
            time.sleep(0.001)
        return time.perf_counter() - start
    finally:
        _docker("kill", made)


def _says_ssh(port: int) -> bool:
    """The engine takes connections to a port before anything listens behind it, and ends them."""
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as connection:
        return connection.recv(4) == b"SSH-"
    return False


def _docker_run_of_a_word(image: str) -> float:
    """Seconds that a container takes in which a program prints a word, from its beginning to its end."""
    start = time.perf_counter()
    told = _docker("run", "--rm", "--init", "--entrypoint", "/bin/sh", image, "-c", "echo SSH-2.0-x")
    assert told.startswith("SSH-2.0-")
    return time.perf_counter() - start


def _docker(*words: str) -> str:
    program = shutil.which("docker") or "docker"
    return subprocess.run([program, *words], capture_output=True, text=True, check=True).stdout


@contextlib.contextmanager
def _sshd(folder: Path) -> Iterator[int]:
    port = free_port()
    (folder / "sshd_config").write_text(_SSHD_CONFIG.format(port=port, folder=folder), "utf-8")
    server = subprocess.Popen(["unshare", "-m", "sh", "-c", _SSHD_START.format(folder=folder)])

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        until(listens, "sshd listens")
        yield port
    finally:
        server.terminate()
        server.wait()
