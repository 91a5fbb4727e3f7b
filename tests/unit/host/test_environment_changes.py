"""The layer that a packing writes leads from what the last one saw to what is there now: on any change of any tree.

A model of a tree is changed at random. What an engine's overlay would show of it is made into a tar, the layers are
stacked as an engine stacks them, and the stack must be the tree.
"""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hakuriver_host.services.environments.changes import Index, write_delta

NAMES = ["a", "b"]
Tree = dict[str, bytes | None]
"""Files by path; a folder is None."""


@dataclass
class Overlay:
    """A container: what it was made from, and what is in it now."""

    base: Tree
    tree: Tree = field(default_factory=dict)
    made_anew: set[str] = field(default_factory=set)
    """Folders of the base that were removed and made again."""
    upper_paths: set[str] = field(default_factory=set)
    """What was written since, and the folders of what was changed: the overlay keeps these, also when they are as
    they were at first."""

    def __post_init__(self) -> None:
        self.tree = dict(self.base)

    def put(self, path: str, data: bytes | None) -> None:
        for depth in range(1, path.count("/") + 1):
            parent = "/".join(path.split("/")[:depth])
            if self.tree.get(parent, b"") is not None:
                self._place(parent, None)
        self._place(path, data)

    def remove(self, path: str) -> None:
        if path in self.tree:
            self._touch(path)
        for each in [each for each in self.tree if each == path or each.startswith(f"{path}/")]:
            del self.tree[each]
            self.made_anew.discard(each)
            self.upper_paths.discard(each)

    def _touch(self, path: str) -> None:
        parts = path.split("/")[:-1]
        self.upper_paths |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}

    def _place(self, path: str, data: bytes | None) -> None:
        if data is None and path in self.tree and self.tree[path] is None:
            return
        self.remove(path)
        self._touch(path)
        self.tree[path] = data
        self.upper_paths.add(path)
        if data is None and path in self.base and self.base[path] is None:
            self.made_anew.add(path)

    def upper(self, *, compares: bool) -> tuple[list[tuple[tarfile.TarInfo, IO[bytes] | None]], set[str]]:
        """What an engine shows: entries in order, and the paths that it calls removed.

        One that compares what was with what is tells what is gone; another tells of folders that were made anew.
        """
        entries: dict[str, tuple[tarfile.TarInfo, IO[bytes] | None]] = {}
        removed = set(self.made_anew)
        if compares:
            removed = {path for path in self.base if path not in self.tree and self._parent_is_folder(path)}
        for path in self.upper_paths:
            entries[path] = _entry(path, self.tree[path])
        for path in self.base:
            if path not in self.tree and not self._under_new(path) and self._parent_is_folder(path):
                entries[path] = _whiteout(path)
                removed.add(path)
        return [entries[path] for path in sorted(entries, key=lambda path: path.split("/"))], removed

    def _under_new(self, path: str) -> bool:
        return any(path.startswith(f"{folder}/") for folder in self.made_anew) or any(
            folder not in self.base and path.startswith(f"{folder}/")
            for folder, data in self.tree.items()
            if data is None
        )

    def _parent_is_folder(self, path: str) -> bool:
        parent = path.rpartition("/")[0]
        return not parent or self.tree.get(parent, b"") is None


def _entry(path: str, data: bytes | None) -> tuple[tarfile.TarInfo, IO[bytes] | None]:
    info = tarfile.TarInfo(path)
    if data is None:
        info.type, info.mode = tarfile.DIRTYPE, 0o755
        return info, None
    info.size = len(data)
    return info, io.BytesIO(data)


def _whiteout(path: str) -> tuple[tarfile.TarInfo, IO[bytes] | None]:
    info = tarfile.TarInfo(path)
    info.type = tarfile.CHRTYPE
    return info, None


def stacked(base: Tree, layers: list[bytes]) -> Tree:
    """What an engine shows of the layers over the base (OCI image specification, layer.md)."""
    tree = dict(base)
    for layer in layers:
        with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
            members = tar.getmembers()
            contents = {m.name: tar.extractfile(m).read() if m.isreg() else None for m in members}  # type: ignore[union-attr]
        for name in contents:
            parent, _, last = name.rpartition("/")
            if last == ".wh..wh..opq":
                _drop(tree, parent, itself=False)
            elif last.startswith(".wh."):
                _drop(tree, f"{parent}/{last[4:]}".lstrip("/"), itself=True)
        for name, data in contents.items():
            if name.rpartition("/")[2].startswith(".wh."):
                continue
            if data is not None:
                _drop(tree, name, itself=True)
            tree[name] = data
    return tree


def _drop(tree: Tree, path: str, *, itself: bool) -> None:
    for each in [each for each in tree if each.startswith(f"{path}/") or (itself and each == path)]:
        del tree[each]


def pack(overlay: Overlay, before: Index, *, compares: bool = True) -> tuple[bytes, Index, int]:
    entries, removed = overlay.upper(compares=compares)
    files = {info.name: file.getvalue() for info, file in entries if isinstance(file, io.BytesIO)}
    output = io.BytesIO()

    def content(path: str) -> Iterator[bytes]:
        yield files[path]

    delta = write_delta(entries, removed, before, content, output)
    return output.getvalue(), delta.index, delta.entries


contents = st.sampled_from([None, b"", b"x"])
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), paths, contents),
        st.tuples(st.just("remove"), paths, st.none()),
        st.tuples(st.just("pack"), st.just(""), st.none()),
    ),
    max_size=30,
)
bases = st.lists(st.tuples(paths, contents), max_size=8)


compared = pytest.mark.parametrize("compares", [True, False])


@compared
@settings(max_examples=400)
@given(base=bases, steps=changes)
def test_the_stack_of_layers_is_the_tree(
    compares: bool, base: list[tuple[str, bytes | None]], steps: list[tuple[str, str, bytes | None]]
) -> None:
    first = Overlay({})
    for path, data in base:
        first.put(path, data)
    overlay = Overlay(first.tree)
    layers: list[bytes] = []
    index: Index = {}
    for verb, path, data in [*steps, ("pack", "", None)]:
        if verb == "put":
            overlay.put(path, data)
        elif verb == "remove":
            overlay.remove(path)
        else:
            layer, index, entries = pack(overlay, index, compares=compares)
            if entries:
                layers.append(layer)
            assert stacked(overlay.base, layers) == overlay.tree


@compared
def test_what_is_in_a_folder_that_was_made_anew_is_packed_again(compares: bool) -> None:
    """The new folder hides what the last layer had in it."""
    overlay = Overlay({"a": None, "a/old": b"x"})
    overlay.put("a/kept", b"x")
    first, index, _ = pack(overlay, {}, compares=compares)
    overlay.remove("a")
    overlay.put("a/kept", b"x")
    second, _, _ = pack(overlay, index, compares=compares)
    assert stacked(overlay.base, [first, second]) == {"a": None, "a/kept": b"x"}


def test_what_did_not_change_costs_nothing() -> None:
    overlay = Overlay({"a": None})
    overlay.put("a/big", b"x" * 10_000)
    _, index, _ = pack(overlay, {})
    overlay.put("a/small", b"y")
    layer, index, entries = pack(overlay, index)
    assert entries == 2, "the folder and the file"
    assert len(layer) < 20_000
    assert pack(overlay, index)[2] == 0


def test_a_changed_file_of_the_same_size_and_time_is_seen() -> None:
    overlay = Overlay({})
    overlay.put("a", b"one")
    _, index, _ = pack(overlay, {})
    overlay.tree["a"] = b"two"
    layer, _, entries = pack(overlay, index)
    assert entries == 1
    assert stacked({}, [layer]) == {"a": b"two"}


def _with_link(target_data: bytes) -> list[tuple[tarfile.TarInfo, IO[bytes] | None]]:
    link = tarfile.TarInfo("link")
    link.type, link.linkname = tarfile.LNKTYPE, "file"
    return [_entry("file", target_data), (link, None)]


def test_a_new_link_to_an_old_file_brings_the_file_along() -> None:
    """A link must find its target in its own layer."""
    _, index, _ = pack_entries([_entry("file", b"data")], {})
    layer, _, _ = pack_entries(_with_link(b"data"), index)
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert [(member.name, member.islnk()) for member in tar] == [("file", False), ("link", True)]


def test_links_to_one_removal_are_removals() -> None:
    """The kernel makes all removals of an overlay links to one device."""
    first, _ = _whiteout("gone")
    second = tarfile.TarInfo("too")
    second.type, second.linkname = tarfile.LNKTYPE, "gone"
    layer, _, _ = pack_entries([(first, None), (second, None)], {})
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        assert tar.getnames() == [".wh.gone", ".wh.too"]


def test_long_names_capabilities_and_devices_are_kept() -> None:
    name = "d" * 90 + "/" + "f" * 120
    info, file = _entry(name, b"data")
    info.pax_headers = {"path": "stale", "SCHILY.xattr.security.capability": "\x01\x00\x00\x02"}
    device = tarfile.TarInfo("null")
    device.type, device.devmajor, device.devminor = tarfile.CHRTYPE, 1, 3
    layer, _, _ = pack_entries([_entry("d" * 90, None), (info, file), (device, None)], {})
    with tarfile.open(fileobj=io.BytesIO(layer)) as tar:
        found = {member.name: member for member in tar}
    assert found[name].pax_headers["SCHILY.xattr.security.capability"] == "\x01\x00\x00\x02"
    assert (found["null"].devmajor, found["null"].devminor) == (1, 3)


def pack_entries(
    entries: list[tuple[tarfile.TarInfo, IO[bytes] | None]], before: Index
) -> tuple[bytes, Index, int]:
    output = io.BytesIO()
    files = {info.name: file.getvalue() for info, file in entries if isinstance(file, io.BytesIO)}
    delta = write_delta(entries, (), before, lambda path: iter([files[path]]), output)
    return output.getvalue(), delta.index, delta.entries
