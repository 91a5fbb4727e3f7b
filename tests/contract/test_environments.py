"""What the environments of a node promise: with the double of an engine's images, and with the real engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from docker.errors import DockerException

from contract.environment_rigs import EnvironmentRig, rig, soon
from hakuriver.models.environments import VersionManifest
from hakuriver.store import Catalog
from hakuriver_agent.engines.port import EngineUnavailableError, Launch, StartCancelledError, StartFailedError
from hakuriver_agent.environments import progress
from hakuriver_agent.environments.fake_images import FakeImages
from support import engine, store
from support.store import layer, unique


@pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EnvironmentRig]:
    made = rig(request.param, tmp_path)
    yield made
    made.close()


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[EnvironmentRig]:
    made = rig("fake", tmp_path)
    yield made
    made.close()


def read(node: EnvironmentRig, manifest: VersionManifest) -> list[int]:
    """How often each layer of a version was read, from the lowest on."""
    return [node.reads[info.diff_id] for info in manifest.layers]


def label(manifest: VersionManifest) -> str:
    return f"{manifest.name}:{manifest.version}"


async def test_a_version_is_loaded_under_its_name(node: EnvironmentRig) -> None:
    name = unique()
    manifest = node.pack(name, [layer(name), layer(f"{name} top")])
    assert await node.get(manifest) == (manifest.tag, manifest.image)
    found = node.image(manifest)
    assert found is not None
    assert (found.id, found.layers) == (manifest.image, tuple(info.diff_id for info in manifest.layers))
    assert read(node, manifest) == [1, 1]


async def test_a_change_costs_the_layers_that_changed(node: EnvironmentRig) -> None:
    name = unique()
    base = [layer(name), layer(f"{name} libraries")]
    first = node.pack(name, base, 1)
    second = node.pack(name, [*base, layer(f"{name} more")], 2)
    other = node.pack(unique(), [base[0], layer(f"{name} other")], 3)
    for manifest in (first, second, other):
        await node.get(manifest)
    assert read(node, second) == [1, 1, 1]
    assert read(node, other) == [1, 1]


async def test_nothing_is_loaded_when_the_engine_has_it(node: EnvironmentRig) -> None:
    name = unique()
    manifest = node.pack(name, [layer(name)], 1)
    await node.get(manifest)
    node.life()
    assert await node.get(manifest) == (manifest.tag, manifest.image)
    assert [told.state for told in await node.synced(manifest)] == ["waiting", "ready"]
    same = manifest.model_copy(update={"name": unique(), "version": 2})
    node.pack(same.name, [layer(name)], 2)
    assert read(node, manifest) == [1]


async def test_the_same_image_under_another_name_only_gets_the_name(node: EnvironmentRig) -> None:
    name, clone = unique(), unique("clone")
    manifest = node.pack(name, [layer(name)])
    copy = manifest.model_copy(update={"name": clone, "version": 5})
    node.manifests.append(copy)
    Catalog(node.root).write(copy)
    await node.get(manifest)
    assert await node.get(copy) == (copy.tag, manifest.image)
    assert read(node, manifest) == [1]


async def test_layers_are_loaded_once_and_a_version_that_is_there_waits_for_none(
    node: EnvironmentRig,
) -> None:
    """20 attempts of 4 environments at once: three share layers that are missing, one is there."""
    name = unique()
    base = [layer(name), layer(f"{name} libraries", 300_000)]
    manifests = [node.pack(unique(f"e{turn}"), [*base, layer(f"{name} {turn}")]) for turn in range(3)]
    present = node.pack(unique("present"), [layer(f"{name} present")])
    await node.get(present)
    hanging = node.gate(manifests[0], 1)
    waiting = [asyncio.create_task(node.get(manifest)) for manifest in manifests for _ in range(5)]
    await soon(lambda: node.reads[manifests[0].layers[1].diff_id], "a load is on its way")
    for _ in range(5):
        assert await node.get(present) == (present.tag, present.image)
    assert not any(task.done() for task in waiting)
    hanging.set()
    got = await asyncio.gather(*waiting)
    assert got == [(manifest.tag, manifest.image) for manifest in manifests for _ in range(5)]
    assert [read(node, manifest) for manifest in manifests] == [[1, 1, 1]] * 3


async def test_versions_that_share_nothing_are_loaded_at_the_same_time(node: EnvironmentRig) -> None:
    name = unique()
    slow, quick = node.pack(unique("slow"), [layer(name)]), node.pack(unique("quick"), [layer(f"{name} 2")])
    hanging = node.gate(slow, 0)
    waiting = asyncio.create_task(node.get(slow))
    await soon(lambda: node.reads[slow.layers[0].diff_id], "the slow one is on its way")
    await node.get(quick)
    assert not waiting.done()
    hanging.set()
    await waiting


async def test_when_a_load_fails_those_that_waited_for_its_layers_load_them(node: EnvironmentRig) -> None:
    name = unique()
    base = layer(name)
    bad = node.pack(unique("bad"), [base, layer(f"{name} bad")])
    good = node.pack(unique("good"), [base, layer(f"{name} good")])
    store.blob(node.root, bad, 1).unlink()
    hanging = node.gate(bad, 0)
    failing = asyncio.create_task(node.get(bad))
    await soon(lambda: node.reads[bad.layers[0].diff_id], "the bad one is on its way")
    lines: list[str] = []
    waiting = asyncio.create_task(node.get(good, Launch(lines.append)))
    await soon(lambda: lines, "the good one says that it waits")
    assert lines == [
        f"syncing {good.name}@{good.version}: waiting for layers that {bad.name}@{bad.version} brings"
    ]
    hanging.set()
    with pytest.raises(StartFailedError, match="is missing on the share"):
        await failing
    assert await waiting == (good.tag, good.image)
    assert node.image(bad) is None


def _missing(path: Path) -> None:
    path.unlink()


def _truncated(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _damaged(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "words"),
    [(_missing, "is missing"), (_truncated, "is cut off"), (_damaged, "is damaged")],
    ids=["missing", "truncated", "damaged"],
)
async def test_a_layer_that_is_not_whole_fails_the_attempt_and_leaves_nothing(
    node: EnvironmentRig, harm: object, words: str
) -> None:
    name = unique()
    top = layer(f"{name} top", 3_000_000)
    manifest = node.pack(name, [layer(name), top])
    blob = store.blob(node.root, manifest, 1)
    whole = blob.read_bytes()
    harm(blob)  # type: ignore[operator]
    with pytest.raises(StartFailedError) as failed:
        await node.get(manifest)
    assert words in failed.value.message
    assert "\n" not in failed.value.message
    assert node.image(manifest) is None
    assert node.images.find(manifest.image) is None
    (told,) = [one for one in await node.synced(manifest) if one.state == "failed"]
    assert words in (told.reason or "")
    blob.write_bytes(whole)
    assert await node.get(manifest) == (manifest.tag, manifest.image)


async def test_a_manifest_that_is_damaged_or_missing_fails_the_attempt(node: EnvironmentRig) -> None:
    manifest = node.pack(unique(), [layer("x")])
    path = node.root / "versions" / manifest.name / f"{manifest.version}.json"
    path.write_text(path.read_text()[:50])
    with pytest.raises(StartFailedError, match="is damaged"):
        await node.get(manifest)
    path.unlink()
    with pytest.raises(StartFailedError, match=f"no version {manifest.version} of the environment"):
        await node.get(manifest)
    node.root.rename(node.folder / "elsewhere")
    with pytest.raises(StartFailedError, match="is not there on this node"):
        await node.get(manifest)


@pytest.mark.parametrize(
    ("environment", "version"), [("../x", "1"), ("", "1"), ("base", "x"), ("base", "-1")]
)
async def test_names_that_would_lead_elsewhere_are_refused(
    fake: EnvironmentRig, environment: str, version: str
) -> None:
    spec = fake.spec(fake.pack("base", [layer("x")]), environment=environment, environment_version=version)
    with pytest.raises(StartFailedError, match="no version"):
        await fake.environments.image(spec, Launch())


async def test_another_image_under_the_name_is_never_used(node: EnvironmentRig) -> None:
    name = unique()
    right = node.pack(name, [layer(name)], 1)
    wrong = node.pack(name, [layer(f"{name} wrong")], 2)
    await node.get(wrong)
    node.images.tag(wrong.image, right.tag)
    assert await node.get(right) == (right.tag, right.image)
    node.images.tag(wrong.image, right.tag)
    node.life()
    assert await node.get(right) == (right.tag, right.image)
    found = node.image(right)
    assert found is not None
    assert found.id == right.image
    assert read(node, right) == [1], "the second time it only needed its name"


async def test_a_killed_attempt_stops_waiting_and_the_load_goes_on(node: EnvironmentRig) -> None:
    manifest = node.pack(unique(), [layer(unique())])
    hanging = node.gate(manifest, 0)
    launch = Launch()
    waiting = asyncio.create_task(node.get(manifest, launch))
    await soon(lambda: node.reads[manifest.layers[0].diff_id], "the load is on its way")
    launch.cancel()
    with pytest.raises(StartCancelledError):
        await waiting
    hanging.set()
    await soon(lambda: node.image(manifest), "it is loaded")
    assert await node.get(manifest) == (manifest.tag, manifest.image)
    assert read(node, manifest) == [1]


async def test_a_share_that_hangs_is_told_and_the_load_goes_on_when_it_is_back(
    fake: EnvironmentRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "HANG_SECONDS", 0.1)
    monkeypatch.setattr(progress, "LOOK_SECONDS", 0.02)
    manifest = fake.pack("base", [layer("x", 5_000_000)])
    hanging = fake.gate(manifest, 0)
    lines: list[str] = []
    waiting = asyncio.create_task(fake.get(manifest, Launch(lines.append)))
    what = f"syncing base@{manifest.version}"
    await soon(lambda: f"{what}: {progress.HANGS}" in lines, "it says that the share hangs")
    assert lines == [f"{what}: 0 of 5.0M", f"{what}: {progress.HANGS}"]
    assert not waiting.done()
    hanging.set()
    assert await waiting == (manifest.tag, manifest.image)


async def test_progress_is_told_to_who_listens_until_it_is_ready(node: EnvironmentRig) -> None:
    manifest = node.pack(unique(), [layer(unique(), 4_000_000)])
    hanging = node.gate(manifest, 0)
    listening = node.environments.sync(manifest.name, manifest.version)
    told = [await anext(listening)]
    while told[-1].state == "waiting":
        told.append(await anext(listening))
    assert (told[-1].state, told[-1].done, told[-1].total) == ("loading", 0, manifest.size)
    await listening.aclose()
    hanging.set()
    rest = await node.synced(manifest)
    assert (rest[-1].state, rest[-1].reason) == ("ready", None)
    assert read(node, manifest) == [1], "who came later joined"


async def test_the_engine_without_it_any_more_loads_it_again(node: EnvironmentRig) -> None:
    manifest = node.pack(unique(), [layer(unique())])
    await node.get(manifest)
    node.images.remove(manifest.tag)
    node.environments.forget(node.spec(manifest))
    assert await node.get(manifest) == (manifest.tag, manifest.image)
    assert read(node, manifest) == [2]


async def test_where_a_layer_turns_out_to_be_missing_all_are_loaded(fake: EnvironmentRig) -> None:
    base = layer("x")
    first, second = fake.pack("base", [base], 1), fake.pack("base", [base, layer("y")], 2)
    await fake.get(first)
    fake.fake.missing.add(first.layers[0].diff_id)
    assert await fake.get(second) == (second.tag, second.image)
    assert read(fake, second) == [2, 2]
    assert fake.fake.loads == 3


async def test_with_containerds_images_whole_archives_are_loaded_and_checked(tmp_path: Path) -> None:
    node = EnvironmentRig(tmp_path, FakeImages(containerd=True))
    base = layer("x")
    first, second = node.pack("base", [base], 1), node.pack("base", [base, layer("y")], 2)
    for manifest in (first, second):
        tag, image = await node.get(manifest)
        found = node.image(manifest)
        assert found is not None
        assert (tag, image) == (manifest.tag, found.id)
        assert image != manifest.image, "there it is the digest of something else"
    assert read(node, second) == [2, 1]
    node.fake.names[second.tag] = node.fake.names[first.tag]
    node.life()
    await node.get(second)
    found = node.image(second)
    assert found is not None
    assert found.layers == tuple(info.diff_id for info in second.layers)


async def test_an_engine_that_is_away_is_no_failure_of_the_attempt(fake: EnvironmentRig) -> None:
    manifest = fake.pack("base", [layer("x")])
    fake.fake.away = DockerException("gone")
    with pytest.raises(EngineUnavailableError):
        await fake.get(manifest)
    told = await fake.synced(manifest)
    assert told[-1].state == "failed"
    fake.fake.away = None
    assert await fake.get(manifest) == (manifest.tag, manifest.image)


class TestTheBudget:
    """Three versions of about 1 MB each, of which two fit."""

    @pytest.fixture(params=["fake", pytest.param("docker", marks=pytest.mark.docker)])
    def small(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EnvironmentRig]:
        made = rig(request.param, tmp_path, budget=2_500_000)
        yield made
        made.close()

    def pack(self, node: EnvironmentRig, count: int = 3) -> list[VersionManifest]:
        return [node.pack(unique(f"b{turn}"), [layer(unique(), 1_000_000)]) for turn in range(count)]

    async def test_the_least_recently_used_goes(self, small: EnvironmentRig) -> None:
        first, second, third = self.pack(small)
        await small.get(first)
        await small.get(second)
        await small.get(first)
        await small.get(third)
        await soon(lambda: small.image(second) is None, "the second one goes")
        await soon(
            lambda: {label(first), label(third)} <= {*small.environments.present} - {label(second)},
            "the others are told to be there",
        )
        assert await small.get(second) == (second.tag, second.image), "it comes back when it is needed"

    async def test_what_an_attempt_that_is_starting_wants_stays(self, small: EnvironmentRig) -> None:
        first, second, third = self.pack(small)
        with small.environments.wanted(small.spec(first)):
            await small.get(first)
            await small.get(second)
            await small.get(third)
            await soon(lambda: small.image(second) is None, "the second one goes")
            assert small.image(first) is not None

    async def test_last_use_is_known_to_the_next_life(self, small: EnvironmentRig) -> None:
        first, second, third = self.pack(small)
        await small.get(second)
        await small.get(first)
        record = small.folder / "state" / "environments.json"
        await soon(lambda: record.exists() and label(first) in record.read_text(), "it is written")
        small.life()
        await small.get(third)
        await soon(lambda: small.image(second) is None, "the second one goes")
        assert small.image(first) is not None

    async def test_one_that_is_too_large_stays_alone(self, small: EnvironmentRig) -> None:
        first, _, _ = self.pack(small)
        large = small.pack(unique("large"), [layer(unique(), 4_000_000)])
        await small.get(first)
        await small.get(large)
        await soon(lambda: small.image(first) is None, "the first one goes")
        assert small.image(large) is not None

    async def test_what_a_container_uses_stays(self, small: EnvironmentRig) -> None:
        first, second, third = self.pack(small)
        await small.get(first)
        with using(small, first):
            await small.get(second)
            await small.get(third)
            await soon(lambda: small.image(second) is None, "the engine keeps the first, so the second goes")
            assert small.image(first) is not None


class using:  # noqa: N801 - reads as a function
    """While a container of the version's image exists."""

    def __init__(self, node: EnvironmentRig, manifest: VersionManifest) -> None:
        self._node, self._manifest = node, manifest

    def __enter__(self) -> None:
        if isinstance(self._node.images, FakeImages):
            self._node.images.in_use.add(self._manifest.image)
        else:
            self._container = engine.client().containers.create(
                self._manifest.image, ["true"], network="none"
            )

    def __exit__(self, *_: object) -> None:
        if not isinstance(self._node.images, FakeImages):
            self._container.remove(force=True)


async def test_what_is_not_there_is_not_remembered(fake: EnvironmentRig) -> None:
    there, gone = fake.pack("there", [layer("x")]), fake.pack("gone", [layer("y")])
    store.blob(fake.root, gone, 0).unlink()
    with pytest.raises(StartFailedError):
        await fake.get(gone)
    await fake.get(there)
    record = fake.folder / "state" / "environments.json"
    await soon(lambda: record.exists() and label(there) in record.read_text(), "it is written")
    assert label(gone) not in record.read_text()


async def test_images_of_others_are_not_touched(tmp_path: Path) -> None:
    """Another cluster's environment on the same engine is in neither the share nor the record."""
    theirs = EnvironmentRig(tmp_path, FakeImages(), budget=1)
    foreign = theirs.pack("foreign", [layer("f", 5_000_000)])
    await theirs.get(foreign)
    (tmp_path / "ours").mkdir()
    ours = EnvironmentRig(tmp_path / "ours", theirs.images, budget=1)
    for turn in range(3):
        await ours.get(ours.pack("own", [layer(f"{turn}")], turn))
    await soon(lambda: len(ours.fake.images) == 2, "its own ones went")
    assert ours.image(foreign) is not None
