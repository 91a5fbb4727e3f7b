"""`cp` and `env cp`: names that tar would read as something else, and what must not come out of a container."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hakuriver.errors import ConflictError, HakuRiverError, NotFoundError
from hakuriver_cli.copying import _fetch, _send
from hakuriver_cli.progress import Progress
from hakuriver_cli.transfer import tar_of


class Folder:
    """A place whose tar is the machine's own, in a folder; or which sends what the test says."""

    name = "lab"

    def __init__(self, root: Path, *, sends: bytes | None = None) -> None:
        self._root = root
        self._sends = sends

    def is_folder(self, path: str) -> bool:
        return (self._root / path.lstrip("/")).is_dir()

    def put(self, folder: str, tar: Iterable[bytes]) -> None:
        words = ["tar", "-xof", "-", "-C", str(self._root / folder.lstrip("/"))]
        done = subprocess.run(words, input=b"".join(tar), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr

    @contextmanager
    def get(self, path: str) -> Iterator[Iterator[bytes]]:
        if self._sends is not None:
            yield iter([self._sends])
            return
        source = self._root / path.lstrip("/")
        words = ["tar", "-cf", "-", "-C", str(source.parent), f"./{source.name}"]
        yield iter([subprocess.run(words, capture_output=True, check=True).stdout])


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").mkdir()
    return tmp_path / "there"


def sent(source: Path, root: Path, path: str) -> list[str]:
    return _send(source, Folder(root), path, Progress(io.StringIO()))


def fetched(place: Folder, path: str, target: Path) -> list[str]:
    return _fetch(place, path, target, Progress(io.StringIO()))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def linked(folder: Path) -> Path:
    """A folder with a hard link, and a symbolic one that begins with its name."""
    folder.mkdir()
    (folder / "f").write_text("said\n", "utf-8")
    (folder / "g").hardlink_to(folder / "f")
    (folder / "s").symlink_to(f"{folder.name}/f")
    return folder


_NAMES = ["x&y", "a,b", "b\\c", "b\\", "x\\Uy", "\\1", "tab\\t", "p;q", "new\nline", "$^.*[a]", "é", "-x"]


class TestNewNames:
    @pytest.mark.parametrize("name", _NAMES)
    def test_there(self, tmp_path: Path, there: Path, name: str) -> None:
        folder = linked(tmp_path / "a")
        sent(folder, there, f"/{name}")
        assert names(there) == [name]
        assert (there / name / "f").read_text("utf-8") == "said\n"
        assert (there / name / "g").samefile(there / name / "f")
        assert (there / name / "s").readlink() == Path("a/f")

    @pytest.mark.parametrize("name", _NAMES)
    def test_here(self, tmp_path: Path, there: Path, name: str) -> None:
        sent(linked(tmp_path / name), there, "/a")
        assert names(there) == ["a"]
        assert (there / "a/g").samefile(there / "a/f")

    def test_one_that_is_not_text(self, tmp_path: Path, there: Path) -> None:
        old, new = os.fsdecode(b"old\xff."), os.fsdecode(b"new\xfe&")
        sent(linked(tmp_path / old), there, f"/{new}")
        assert names(there) == [new]
        assert (there / new / "g").samefile(there / new / "f")

    def test_what_a_file_is_called_within_stays(self, tmp_path: Path) -> None:
        (tmp_path / "a/a").mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(b"".join(tar_of(tmp_path / "a", name="b")))) as tar:
            assert tar.getnames() == ["b", "b/a"]


class TestOut:
    def test_links_that_lead_elsewhere_are_left_out_and_the_rest_comes(
        self, tmp_path: Path, there: Path
    ) -> None:
        venv = linked(there / "venv")
        (venv / "bin").mkdir()
        (venv / "bin/python").symlink_to("/usr/bin/python3")
        os.link(venv / "bin/python", venv / "bin/python3", follow_symlinks=False)
        (venv / "bin/up").symlink_to("../../../etc")
        (venv / "bin/own").symlink_to("../f")
        os.mkfifo(venv / "pipe")
        said = fetched(Folder(there), "/venv", tmp_path / "back")
        back = tmp_path / "back"
        assert sorted(path.name for path in back.rglob("*")) == ["bin", "f", "g", "own", "s"]
        assert (back / "bin/own").read_text("utf-8") == "said\n"
        assert (back / "g").samefile(back / "f")
        assert said[0] == f"copied lab:/venv to {back}"
        assert said[1].startswith("left out 4 (links that lead elsewhere, or devices): venv/")
        assert said[1].endswith(", …")
        assert said[1].count("venv/") == 3

    def test_nothing_is_said_of_what_is_whole(self, tmp_path: Path, there: Path) -> None:
        linked(there / "a")
        assert fetched(Folder(there), "/a", tmp_path) == [f"copied lab:/a to {tmp_path / 'a'}"]

    def test_a_link_that_leads_elsewhere_alone(self, tmp_path: Path, there: Path) -> None:
        (there / "python").symlink_to("/usr/bin/python3")
        with pytest.raises(NotFoundError, match="nothing that can be copied"):
            fetched(Folder(there), "/python", tmp_path)
        assert names(tmp_path) == ["there"]

    def test_a_hard_link_to_a_link_leads_nowhere_else(self, tmp_path: Path, there: Path) -> None:
        """A deep `../../x` stays within, and the same one further up does not."""
        first = member("a/deep/deep/link", tarfile.SYMTYPE, "../../x")
        within = member("a/deep/also", tarfile.LNKTYPE, "a/deep/deep/link")
        without = member("out", tarfile.LNKTYPE, "a/deep/deep/link")
        sends = archive(member("a", tarfile.DIRTYPE), first, within, without)
        said = fetched(Folder(there, sends=sends), "/a", tmp_path)
        assert (tmp_path / "a/deep/also").readlink() == Path("../../x")
        assert said[1:] == ["left out 1 (links that lead elsewhere, or devices): out"]

    def test_a_hard_link_to_nothing(self, tmp_path: Path, there: Path) -> None:
        sends = archive(member("a", tarfile.DIRTYPE), member("a/x", tarfile.LNKTYPE, "a/none"))
        said = fetched(Folder(there, sends=sends), "/a", tmp_path)
        assert said[1:] == ["left out 1 (links that lead elsewhere, or devices): a/x"]

    def test_a_name_that_leads_out_is_no_mistake(self, tmp_path: Path, there: Path) -> None:
        with pytest.raises(HakuRiverError, match="cannot be unpacked"):
            fetched(Folder(there, sends=archive(member("../evil"))), "/a", tmp_path / "target")
        assert names(tmp_path) == ["there"]


class Watched(Folder):
    """One that sends `a/f`, and tells what is in the folders here meanwhile."""

    def __init__(self, root: Path, watched: Path) -> None:
        super().__init__(root)
        self._watched = watched
        self.seen: set[Path] = set()

    @contextmanager
    def get(self, path: str) -> Iterator[Iterator[bytes]]:
        self.seen = set(self._watched.rglob(".*"))
        with super().get(path) as pieces:
            yield pieces


class TestUntilItIsWhole:
    """What comes lies on the file system where it goes, and where whoever copies may write."""

    @pytest.mark.parametrize(
        ("target", "scratch"), [("", ""), ("a", "a"), ("new", ""), ("other", "other"), ("link", "other")]
    )
    def test_it_lies_in_the_target_if_that_is_a_folder(
        self, tmp_path: Path, there: Path, target: str, scratch: str
    ) -> None:
        linked(there / "it")
        here = tmp_path / "here"
        for name in ("a", "other"):
            (here / name).mkdir(parents=True)
        (here / "link").symlink_to("other")
        place = Watched(there, tmp_path)
        fetched(place, "/it", here / target)
        assert [path.parent for path in place.seen] == [here / scratch]
        assert not list(tmp_path.rglob(".*"))

    def test_it_lies_in_the_folder_with_which_it_becomes_one(self, tmp_path: Path, there: Path) -> None:
        """Which may be a file system of its own, or the only one there that whoever copies may write to."""
        linked(there / "a")
        (tmp_path / "here/a").mkdir(parents=True)
        place = Watched(there, tmp_path)
        fetched(place, "/a", tmp_path / "here")
        assert [path.parent for path in place.seen] == [tmp_path / "here/a"]
        assert names(tmp_path / "here/a") == ["f", "g", "s"]

    def test_another_file_system(self, there: Path) -> None:
        memory = Path("/dev/shm")
        if memory.stat().st_dev == memory.parent.stat().st_dev:
            pytest.skip("/dev/shm is no file system of its own")
        name = f"hakuriver-{os.getpid()}"
        (there / name).write_text("said\n", "utf-8")
        try:
            fetched(Folder(there), f"/{name}", memory)
            assert (memory / name).read_text("utf-8") == "said\n"
        finally:
            (memory / name).unlink(missing_ok=True)

    @pytest.mark.parametrize("parent", ["none", "file"])
    def test_a_folder_that_is_not_there_is_told_before_anything_comes(
        self, tmp_path: Path, there: Path, parent: str
    ) -> None:
        (there / "a").touch()
        (tmp_path / "file").touch()
        place = Watched(there, tmp_path)
        place.seen = {tmp_path}
        with pytest.raises(NotFoundError, match=f"there is no folder {tmp_path / parent} here"):
            fetched(place, "/a", tmp_path / parent / "new")
        assert place.seen == {tmp_path}
        assert names(tmp_path) == ["file", "there"]


class TestOntoWhatIsThere:
    def test_folders_become_one(self, tmp_path: Path, there: Path) -> None:
        linked(there / "a")
        (tmp_path / "a").mkdir()
        (tmp_path / "a/f").write_text("old\n", "utf-8")
        (tmp_path / "a/mine").touch()
        fetched(Folder(there), "/a", tmp_path)
        assert names(tmp_path / "a") == ["f", "g", "mine", "s"]
        assert (tmp_path / "a/f").read_text("utf-8") == "said\n"

    @pytest.mark.parametrize("link", ["a", "a/deep"])
    def test_a_link_that_came_before_is_not_followed(self, tmp_path: Path, there: Path, link: str) -> None:
        (there / "a/deep").mkdir(parents=True)
        (there / "a/deep/keys").touch()
        here = tmp_path / "here"
        (here / "secret").mkdir(parents=True)
        (here / link).parent.mkdir(exist_ok=True)
        (here / link).symlink_to(here / "secret")
        with pytest.raises(ConflictError, match="is a link, not a folder"):
            fetched(Folder(there), "/a", here)
        assert not list((here / "secret").rglob("keys"))

    def test_a_folder_and_a_file(self, tmp_path: Path, there: Path) -> None:
        (there / "a").mkdir()
        (there / "f").touch()
        (tmp_path / "a").touch()
        (tmp_path / "f").mkdir()
        with pytest.raises(ConflictError, match="a is a file, not a folder"):
            fetched(Folder(there), "/a", tmp_path)
        with pytest.raises(ConflictError, match="f is a folder"):
            fetched(Folder(there), "/f", tmp_path)


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = kind, link
    return made


def archive(*members: tarfile.TarInfo) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for each in members:
            tar.addfile(each)
    return file.getvalue()
