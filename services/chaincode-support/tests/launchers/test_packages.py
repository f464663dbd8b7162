"""The folder of packages: what is dropped in, installed, changed, and taken away."""

import asyncio
import gzip
import hashlib
import os
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from launching import BOUNDS, CCAAS, CONNECTION, StartLaunching, drop, id_of, package
from prometheus_client import REGISTRY
from rawshim import PATIENCE

from chaincode_support.chaincode.errors import UnknownChaincode
from chaincode_support.launchers.archive import Bounds
from chaincode_support.launchers.errors import (
    BrokenPackage,
    DroppedPackage,
    LaunchFailed,
    PackageTooLarge,
    UnknownPackage,
)
from chaincode_support.launchers.package import Connection, Package, read_package
from chaincode_support.launchers.packages import SHOWN_BROKEN, Found, PackageBounds, Packages
from selvedge_protos.selvedge.chaincode.v1.chaincodes_pb2 import Chaincode, ListResponse


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "chaincodes"


@pytest.fixture
def packages(folder: Path) -> Packages:
    return Packages(folder, BOUNDS, {"peername": "peer0"})


def in_use(found: Found) -> dict[str, str]:
    return {name: package.id for name, package in found.packages.items()}


def reasons(found: Found) -> dict[str, str]:
    return {broken.place.name: broken.reason for broken in found.broken}


def age(place: Path, seconds: float) -> None:
    """Let a package have been put there so many seconds after the first."""
    files = [place] if place.is_file() else list(place.iterdir())
    for file in files:
        os.utime(file, (1000 + seconds, 1000 + seconds))


def gauge(name: str) -> float | None:
    return REGISTRY.get_sample_value(name)


def test_the_folder_is_made_for_its_owner_alone_and_left_as_it_is(
    packages: Packages, folder: Path
) -> None:
    assert packages.look() == Found({}, (), ())
    assert folder.stat().st_mode & 0o777 == 0o700
    folder.chmod(0o755)
    packages.look()
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_is_dropped_in_is_a_package_known_by_the_hash_of_its_files(
    packages: Packages, folder: Path
) -> None:
    place = drop(folder, "any name", CCAAS, CONNECTION)
    first = packages.look().packages["mycc"]
    assert first.place == place
    assert isinstance(first.launch, Connection)
    assert packages.look().packages["mycc"] is first  # it is not read again
    drop(folder, "any name", CCAAS, {"address": "other:9999"})
    second = packages.look().packages["mycc"]
    assert isinstance(second.launch, Connection)
    assert second.launch.address == "other:9999"
    assert first.id != second.id
    place.rename(folder.parent / "elsewhere")
    assert packages.look() == Found({}, (), ())


def test_a_file_of_fabric_s_is_a_package_with_fabric_s_id(packages: Packages, folder: Path) -> None:
    packages.look()
    data = package("mycc_1.0")
    (folder / "as it was built.tar.gz").write_bytes(data)
    assert in_use(packages.look()) == {"mycc": id_of("mycc_1.0", data)}


def test_what_is_no_package_by_its_name_is_left_alone(packages: Packages, folder: Path) -> None:
    drop(folder, ".hidden", CCAAS, CONNECTION)
    (folder / "README.md").write_text("these are packages")
    assert packages.look() == Found({}, (), ())


def test_a_broken_package_harms_no_other_and_is_told_of_once(
    packages: Packages, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drop(folder, "good", CCAAS, CONNECTION)
    drop(folder, "golang", {"type": "golang", "label": "a"})
    (folder / "empty").mkdir()
    (folder / "rubbish.tar.gz").write_bytes(b"rubbish")
    (folder / "loop").symlink_to(folder / "loop")
    for _ in range(2):
        found = packages.look()
        assert list(found.packages) == ["mycc"]
        told = reasons(found)
        assert told.keys() == {"golang", "empty", "rubbish.tar.gz"}
        assert told["empty"] == "there is no metadata.json in it"
    assert caplog.text.count("package cannot be used") == 3
    assert (gauge("chaincode_packages"), gauge("chaincode_broken_packages")) == (1, 3)


def make_fifo(file: Path) -> None:
    os.mkfifo(file)


def make_socket(file: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(file))


def make_device(file: Path) -> None:
    file.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [make_fifo, make_socket, make_device, Path.mkdir])
def test_what_is_no_file_is_not_opened(
    packages: Packages, folder: Path, make: Callable[[Path], None]
) -> None:
    drop(folder, "good", CCAAS, CONNECTION)
    for entry in ("a", "b"):
        (folder / entry).mkdir()
    make(folder / "a" / "metadata.json")
    (folder / "b" / "metadata.json").write_text('{"type": "ccaas", "label": "b"}')
    make(folder / "b" / "connection.json")
    found = packages.look()
    assert list(found.packages) == ["mycc"]
    assert reasons(found) == {
        "a": "metadata.json is no file: put a regular one there",
        "b": "connection.json is no file: put a regular one there",
    }


def test_an_archive_that_is_no_file_is_not_opened(packages: Packages, folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "a.tar.gz")
    assert reasons(packages.look()) == {"a.tar.gz": "a.tar.gz is no file: put a regular one there"}


def test_a_file_may_be_linked_to_as_kubernetes_does(packages: Packages, folder: Path) -> None:
    place = drop(folder, "good", CCAAS, CONNECTION)
    (place / "metadata.json").rename(place / "..data")
    (place / "metadata.json").symlink_to("..data")
    assert list(packages.look().packages) == ["mycc"]


def test_whatever_happens_while_a_package_is_read_harms_no_other(
    packages: Packages,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def read(metadata: bytes, *rest: Any) -> Package:
        if b"evil" in metadata:
            raise ZeroDivisionError("nobody thought of it")
        return read_package(metadata, *rest)

    monkeypatch.setattr("chaincode_support.launchers.packages.read_package", read)
    drop(folder, "evil", {"type": "ccaas", "label": "evil"}, CONNECTION)
    drop(folder, "good", CCAAS, CONNECTION)
    found = packages.look()
    assert list(found.packages) == ["mycc"]
    assert reasons(found) == {
        "evil": "it could not be read (ZeroDivisionError); the peer's log has more"
    }
    assert "nobody thought of it" in caplog.text


@pytest.mark.parametrize("entry", ["mycc\udcff", "my\x1b[2Jcc", "my\ncc"])
async def test_a_folder_whose_name_does_not_print_is_broken_and_can_be_listed(
    start: StartLaunching, entry: str
) -> None:
    launching = await start()
    await launching.drop(entry, CCAAS, CONNECTION)
    (listed,) = launching.launchers.describe(())
    assert listed.name.isprintable()
    assert listed.launcher_state.startswith(
        "broken package: its name has characters that do not print: give it another (in "
    )
    assert listed.launcher_state.isprintable()
    assert ListResponse.FromString(ListResponse(chaincodes=[listed]).SerializeToString())


async def test_of_many_broken_packages_some_are_shown_and_the_others_counted(
    start: StartLaunching, caplog: pytest.LogCaptureFixture
) -> None:
    launching = await start(bounds=replace(BOUNDS, packages=SHOWN_BROKEN))
    for number in range(SHOWN_BROKEN + 50):
        (launching.folder / f"{number}").mkdir()
    for _ in range(3):
        await launching.launchers.look()
    *shown, more = launching.launchers.describe(())
    assert len(shown) == SHOWN_BROKEN
    assert (more.name, more.launcher_state) == (
        "…",
        "broken package: and 50 more, in the folder chaincode.packages",
    )
    assert caplog.text.count("package cannot be used") == SHOWN_BROKEN
    assert caplog.text.count("more packages cannot be used than are told one by one") == 1
    assert gauge("chaincode_broken_packages") == SHOWN_BROKEN + 50


async def test_many_installations_at_once_are_counted(start: StartLaunching) -> None:
    launching = await start()
    installed = await asyncio.gather(
        *(launching.launchers.install(package(f"cc{number}")) for number in range(20)),
        return_exceptions=True,
    )
    refused = [each for each in installed if isinstance(each, PackageTooLarge)]
    assert len(refused) == 20 - BOUNDS.packages
    assert len(list(launching.folder.iterdir())) == BOUNDS.packages


def test_the_longest_label_can_be_kept(packages: Packages) -> None:
    installed = packages.install(package("x" * 160))
    assert in_use(packages.look()) == {"x" * 160: installed.id}


async def test_a_disk_that_hangs_keeps_nobody_from_stopping(
    start: StartLaunching, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, answers = threading.Event(), threading.Event()

    def hang(_: Packages) -> Found:
        hanging.set()
        answers.wait(PATIENCE)
        return Found({}, (), ())

    launching = await start(interval=0.01, grace=0.05)
    with monkeypatch.context() as patched:
        patched.setattr(Packages, "look", hang)
        assert await asyncio.to_thread(hanging.wait, PATIENCE)
        await launching.launchers.stop()
        assert not answers.is_set()
        answers.set()


def test_a_package_that_is_being_written_stays_what_it_was(
    packages: Packages, folder: Path
) -> None:
    place = drop(folder, "mycc", CCAAS, CONNECTION)
    before = in_use(packages.look())
    (place / "metadata.json").write_text('{"type": "cc')
    found = packages.look()
    assert in_use(found) == before
    assert "metadata.json is not JSON" in reasons(found)["mycc"]
    drop(folder, "mycc", {**CCAAS, "version": "2"}, CONNECTION)
    found = packages.look()
    assert (found.packages["mycc"].version, found.broken) == ("2", ())


def test_the_newest_of_a_name_is_used(packages: Packages, folder: Path) -> None:
    age(drop(folder, "a", {"type": "ccaas", "label": "mycc_2.0"}, CONNECTION), 1)
    age(drop(folder, "b", {"type": "ccaas", "label": "mycc_1.0"}, CONNECTION), 2)
    found = packages.look()
    assert found.packages["mycc"].label == "mycc_1.0"
    assert [package.label for package in found.superseded] == ["mycc_2.0"]
    age(folder / "a", 3)
    assert packages.look().packages["mycc"].label == "mycc_2.0"


def test_an_installed_package_is_kept_and_used(packages: Packages, folder: Path) -> None:
    data = package("mycc_1.0")
    installed = packages.install(data)
    assert (installed.id, installed.name) == (id_of("mycc_1.0", data), "mycc")
    assert in_use(packages.look()) == {"mycc": installed.id}
    (file,) = folder.iterdir()
    assert file.name == installed.id.replace(":", ".") + ".tar.gz"
    assert file.stat().st_mode & 0o777 == 0o600
    again = Packages(folder, BOUNDS, {})
    assert in_use(again.look()) == {"mycc": installed.id}


def test_one_that_is_installed_again_takes_its_place_back(packages: Packages, folder: Path) -> None:
    first, second = package("mycc_1.0"), package("mycc_2.0")
    for seconds, data in enumerate((first, second)):
        age(packages.install(data).place, seconds)
    assert packages.look().packages["mycc"].label == "mycc_2.0"
    packages.install(first)
    assert packages.look().packages["mycc"].label == "mycc_1.0"
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"rubbish", "the package is no gzipped tar"),
        (package("mycc", type="process", command=["sh"]), "type process cannot be installed"),
        (package("mycc", type="golang"), "this peer builds no chaincode"),
        (package("../mycc"), r"the label in metadata.json is '\.\./mycc'"),
    ],
)
def test_what_cannot_be_used_is_not_kept(
    packages: Packages, folder: Path, data: bytes, sentence: str
) -> None:
    packages.look()
    with pytest.raises(BrokenPackage, match=sentence):
        packages.install(data)
    assert not list(folder.iterdir())


def test_a_removed_package_is_gone(packages: Packages, folder: Path) -> None:
    installed = packages.install(package("mycc_1.0"))
    packages.look()
    packages.remove(installed.id)
    assert packages.look() == Found({}, (), ())
    assert not list(folder.iterdir())
    with pytest.raises(UnknownPackage, match=f"there is no package {installed.id} here"):
        packages.remove(installed.id)


def test_what_an_operator_dropped_in_an_operator_takes_away(
    packages: Packages, folder: Path
) -> None:
    place = drop(folder, "mycc", CCAAS, CONNECTION)
    dropped = packages.look().packages["mycc"]
    with pytest.raises(DroppedPackage, match=f"was not installed but put into {place}: remove"):
        packages.remove(dropped.id)
    assert place.is_dir()


def refusals(limit: str) -> float:
    sample = REGISTRY.get_sample_value("chaincode_limit_refusals_total", {"limit": limit})
    return sample or 0.0


def test_packages_are_counted(packages: Packages, folder: Path) -> None:
    before = refusals("packages")
    for number in range(6):
        drop(folder, f"p{number}", {"type": "ccaas", "label": f"cc{number}"}, CONNECTION)
    for _ in range(2):
        found = packages.look()
        assert list(reasons(found)) == ["p5"]
        assert (
            "there are 5 packages already, the limit of chaincode.limits.packages"
            in reasons(found)["p5"]
        )
    with pytest.raises(PackageTooLarge, match="there are 5 packages already"):
        packages.install(package("mycc_1.0"))
    assert refusals("packages") == before + 2
    (folder / "p0").rename(folder.parent / "p0")
    found = packages.look()
    assert ("cc5" in found.packages, found.broken) == (True, ())


def test_files_are_bounded(folder: Path) -> None:
    packages = Packages(folder, PackageBounds(Bounds(size=1000, files=5), packages=5), {})
    before = refusals("packageBytes")
    drop(folder, "mycc", {**CCAAS, "path": "x" * 1000}, CONNECTION)
    assert "metadata.json is larger than 1000 bytes" in reasons(packages.look())["mycc"]
    with pytest.raises(PackageTooLarge, match="the package is larger than 1000 bytes"):
        packages.install(gzip.compress(os.urandom(2000)))
    assert refusals("packageBytes") == before + 2


def test_a_folder_that_cannot_be_read_changes_nothing(
    packages: Packages, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drop(folder, "mycc", CCAAS, CONNECTION)
    before = packages.look()
    folder.rename(folder.with_name("elsewhere"))
    folder.write_text("in the way")
    for _ in range(2):
        assert packages.look() == before
    assert caplog.text.count("the folder chaincode.packages cannot be read") == 1
    folder.unlink()
    folder.with_name("elsewhere").rename(folder)
    assert packages.look() == before


@pytest.mark.parametrize(
    ("entry", "metadata", "name"),
    [
        ("any name", '{"type": "golang", "label": "mycc_1.0"}', "mycc"),
        ("any name", '{"type": "ccaas", "label": "a", "name": "mycc"}', "mycc"),
        ("any name", '{"type": "ccaas", "label": "mycc", "version": "1:0"}', "mycc"),
        ("mycc", '{"type": "ccaas", "label": "other', "mycc"),
        ("mycc", '{"type": "ccaas"}', "mycc"),
        ("mycc\udcff", "{", r"mycc\udcff"),
    ],
)
def test_a_broken_package_is_known_by_its_chaincode_or_by_its_folder(
    packages: Packages, folder: Path, entry: str, metadata: str, name: str
) -> None:
    place = folder / entry
    place.mkdir(parents=True)
    (place / "metadata.json").write_text(metadata)
    (broken,) = packages.look().broken
    assert (broken.name, broken.place) == (name, place)


def test_a_package_that_breaks_keeps_its_chaincode_s_name(packages: Packages, folder: Path) -> None:
    place = drop(folder, "any name", CCAAS, CONNECTION)
    packages.look()
    (place / "metadata.json").write_text('{"type": "cc')
    assert [broken.name for broken in packages.look().broken] == ["mycc"]


async def test_a_call_of_a_broken_package_fails_at_once_as_it_is_listed(
    start: StartLaunching,
) -> None:
    launching = await start(startup_timeout=3600.0)
    place = await launching.drop("some folder", CCAAS)
    with pytest.raises(LaunchFailed) as told:
        await launching.peer.execute("mycc")
    assert str(told.value).startswith(
        "chaincode mycc has a broken package: there is no connection.json: put one beside"
    )
    assert str(told.value) == f"chaincode mycc has a {launching.state('mycc')}"
    place.rename(place.with_name(".hidden"))
    await launching.launchers.look()
    with pytest.raises(UnknownChaincode):
        await launching.peer.execute("mycc")


async def test_the_folder_is_looked_at_again_and_again(
    start: StartLaunching, eventually: Any
) -> None:
    launching = await start(interval=0.01)
    drop(launching.folder, "mycc", CCAAS, CONNECTION)
    await eventually(lambda: [each.name for each in launching.launchers.describe(())] == ["mycc"])


async def test_all_that_is_known_is_described(start: StartLaunching) -> None:
    launching = await start()
    drop(launching.folder, "broken", {"type": "golang", "label": "broken_2.0"})
    place = drop(launching.folder, "proc", {"type": "process", "label": "proc", "command": ["x"]})
    age(drop(launching.folder, "old", CCAAS, CONNECTION), 0)
    new = await launching.launchers.install(package("mycc_2.0"))
    registered = [
        Chaincode(name="qscc", launcher=Chaincode.SYSTEM),
        Chaincode(name="mycc", version="1.0", completed=7),
        Chaincode(name="other", version="3.0"),
    ]
    described = launching.launchers.describe(registered)
    assert [(each.name, each.launcher, each.version, each.completed) for each in described] == [
        ("broken", Chaincode.LAUNCHER_UNSPECIFIED, "", 0),
        ("mycc", Chaincode.SERVICE, "1.0", 7),
        ("mycc", Chaincode.SERVICE, "", 0),
        ("other", Chaincode.EXTERNAL, "3.0", 0),
        ("proc", Chaincode.PROCESS, "", 0),
        ("qscc", Chaincode.SYSTEM, "", 0),
    ]
    broken, current, superseded, other, proc, _ = described
    assert broken.launcher_state.startswith("broken package: metadata.json has the type 'golang'")
    assert (current.package_id, current.launcher_state) == (
        new.id,
        "to be launched when it is first called",
    )
    assert superseded.launcher_state == f"superseded by package {new.id}"
    assert (other.package_id, other.launcher_state) == ("", "")
    assert (
        proc.package_id
        == f"proc:{hashlib.sha256((place / 'metadata.json').read_bytes()).hexdigest()}"
    )
