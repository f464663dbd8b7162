"""Backups of channels at work, and their way back."""

import asyncio
import json
import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from testchannel import CHANNEL, Network, Service, writes
from volumes import (
    BLOCKS,
    SETTINGS,
    changing,
    contents,
    copy_of,
    damage_block,
    fill,
    fingerprints,
    leave_room,
    order,
    quiet,
)

from chaincode_support.ledger import LedgerInUse, LedgerUnusable
from chaincode_support.maintenance.backup import back_up
from chaincode_support.maintenance.errors import (
    InTheWay,
    MaintenanceError,
    NoBackup,
    NoRoom,
    NothingThere,
)
from chaincode_support.maintenance.judging import Judging
from chaincode_support.maintenance.manifest import MANIFEST, CopiedFile, Manifest
from chaincode_support.maintenance.restoring import restore
from chaincode_support.maintenance.verification import verify
from chaincode_support.volume import ChannelFiles, Claim


@pytest.fixture
def backup(sound: Path, tmp_path: Path) -> Path:
    """A backup of the sound channel."""
    folder = tmp_path / "backup"
    back_up(sound, [CHANNEL], folder, quiet)
    return folder


async def test_a_channel_at_work_is_copied_whole(network: Network, tmp_path: Path) -> None:
    async with Service(network, tmp_path / "volume", SETTINGS) as service:
        await fill(service)

        async def write() -> None:
            while True:
                await order(service, network.transaction(writes(a=b"on", z=b"and on"))[1])

        writing = asyncio.create_task(write())
        heights = []
        for number in range(5):
            folder = tmp_path / f"backup{number}"
            copied = await asyncio.to_thread(back_up, tmp_path / "volume", [CHANNEL], folder, quiet)
            assert not writing.done()
            report = await asyncio.to_thread(verify, ChannelFiles.on(folder, CHANNEL), quiet)
            assert report.findings == []
            assert (report.blocks, report.ordered) == (
                copied[CHANNEL].blocks,
                copied[CHANNEL].ordered,
            )
            assert copied[CHANNEL].blocks <= copied[CHANNEL].ordered
            heights.append(report.blocks)
        writing.cancel()
    assert BLOCKS <= heights[0] < heights[-1]


async def test_a_service_goes_on_with_what_was_restored(
    network: Network, backup: Path, tmp_path: Path
) -> None:
    [report] = restore(backup, tmp_path / "new", [], quiet, force=False)
    assert (report.channel, report.blocks, report.sound) == (CHANNEL, BLOCKS, True)
    async with Service(network, tmp_path / "new", SETTINGS) as service:
        await order(service, network.transaction(writes(a=b"again"))[1])
        assert service.ledger.height == BLOCKS + 1
    assert verify(ChannelFiles.on(tmp_path / "new", CHANNEL), quiet).sound


def test_a_backup_is_read_where_nothing_can_be_written(backup: Path) -> None:
    files = ChannelFiles.on(backup, CHANNEL)
    verify(files, quiet)
    for file in (files.ledger, files.ordering):
        assert [each.name for each in file.parent.iterdir()] == [file.name]
        assert file.stat().st_mode & 0o777 == 0o600
    assert backup.stat().st_mode & 0o777 == 0o700


def test_the_manifest_says_what_is_there(sound: Path, backup: Path) -> None:
    copied = Manifest.read(backup).channels[CHANNEL]
    report = verify(ChannelFiles.on(sound, CHANNEL), quiet)
    assert (copied.blocks, copied.ordered) == (BLOCKS, BLOCKS)
    assert copied.last_block_hash == report.last_block_hash
    ledger = ChannelFiles.on(backup, CHANNEL).ledger
    assert copied.ledger == CopiedFile.of(ledger, "again", quiet)
    assert contents(ledger) == contents(ChannelFiles.on(sound, CHANNEL).ledger)


def test_a_folder_in_use_is_not_written_into(sound: Path, tmp_path: Path) -> None:
    (tmp_path / "something").touch()
    with pytest.raises(InTheWay, match=r"is not empty: name a new folder for the backup"):
        back_up(sound, [CHANNEL], tmp_path, quiet)


@pytest.mark.parametrize("place", ["ledger", "ordering", "ledger/monday", "ordering/a/b", "link"])
def test_a_backup_among_the_channels_is_refused(
    files: ChannelFiles, tmp_path: Path, place: str
) -> None:
    volume = tmp_path / "volume"
    (volume / "link").symlink_to(volume / "ledger", target_is_directory=True)
    for left in files.ledger.parent.iterdir():
        left.unlink()
    before = sorted(volume.rglob("*"))
    with pytest.raises(InTheWay, match=r"where the channels themselves are: name a folder somewh"):
        back_up(volume, [CHANNEL], volume / place, quiet)
    assert sorted(volume.rglob("*")) == before


def test_a_damaged_channel_is_not_taken_for_a_backup(files: ChannelFiles, tmp_path: Path) -> None:
    files.ordering.write_bytes(b"no database" * 1000)
    with pytest.raises(
        MaintenanceError,
        match=rf"cannot be copied, for {files.ordering} is not sound: it is no database.* `verify`",
    ):
        back_up(tmp_path / "volume", [CHANNEL], tmp_path / "new" / "backup", quiet)
    assert not (tmp_path / "new").exists()
    (tmp_path / "backup").mkdir()
    with pytest.raises(MaintenanceError, match=r"cannot be copied"):
        back_up(tmp_path / "volume", [CHANNEL], tmp_path / "backup", quiet)
    assert list((tmp_path / "backup").iterdir()) == []
    with pytest.raises(NoBackup, match=r"holds no backup, or one that was not finished"):
        restore(tmp_path / "backup", tmp_path / "new", [], quiet, force=False)


def test_a_backup_that_does_not_fit_is_refused_before_it_is_begun(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_room(monkeypatch, 10_000)
    with pytest.raises(NoRoom, match=r"has 0 MB left, and 1 MB are needed: make room on it"):
        back_up(sound, [CHANNEL], tmp_path / "backup", quiet)
    assert not (tmp_path / "backup").exists()


def test_what_does_not_fit_is_not_restored_in_part(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_room(monkeypatch, 10_000)
    copied: list[object] = []
    monkeypatch.setattr(shutil, "copyfile", lambda *files: copied.append(files))
    with pytest.raises(NoRoom, match=r"make room on it"):
        restore(backup, tmp_path / "new", [], quiet, force=False)
    assert copied == []
    assert not (tmp_path / "new").exists()


def test_nothing_is_replaced_unless_that_is_said(
    files: ChannelFiles, backup: Path, tmp_path: Path
) -> None:
    with changing(files.ledger) as connection:
        connection.execute("DELETE FROM state")
    before = files.ledger.read_bytes()
    with pytest.raises(InTheWay, match=r"is there already .* or replace it with --force"):
        restore(backup, tmp_path / "volume", [], quiet, force=False)
    assert files.ledger.read_bytes() == before
    restore(backup, tmp_path / "volume", [], quiet, force=True)
    assert verify(files, quiet).sound


def test_a_log_that_a_killed_service_left_is_not_read_as_the_restored_file_s(
    sound: Path, backup: Path, tmp_path: Path
) -> None:
    files = copy_of(sound, tmp_path / "volume")
    with closing(sqlite3.connect(files.ledger, isolation_level=None)) as killed:
        killed.execute("DELETE FROM state")
        left = {file.name: file.read_bytes() for file in files.ledger.parent.iterdir()}
    for name, content in left.items():
        (files.ledger.parent / name).write_bytes(content)
    assert len(left[f"{CHANNEL}.sqlite-wal"]) > 0
    restore(backup, tmp_path / "volume", [], quiet, force=True)
    assert fingerprints(files.ledger) == fingerprints(ChannelFiles.on(sound, CHANNEL).ledger)


def test_a_channel_in_use_is_left_alone(backup: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    claim = Claim(ChannelFiles.on(volume, CHANNEL), "a running chaincode-support")
    with pytest.raises(LedgerInUse, match=r"in use by a running chaincode-support, which holds"):
        restore(backup, volume, [], quiet, force=True)
    claim.release()
    restore(backup, volume, [], quiet, force=False)


@pytest.mark.parametrize("part", ["ledger", "ordering"])
def test_a_backup_that_was_changed_is_refused(backup: Path, tmp_path: Path, part: str) -> None:
    file = getattr(ChannelFiles.on(backup, CHANNEL), part)
    damage_block(file, 1)
    with pytest.raises(NoBackup, match=rf"{file} is not as it was when the backup was made"):
        restore(backup, tmp_path / "home" / "new", [], quiet, force=False)
    # Nor are there folders or a lock that were not there before.
    assert not (tmp_path / "home").exists()


def test_a_restore_that_fails_leaves_a_volume_as_it_was(
    files: ChannelFiles, backup: Path, tmp_path: Path
) -> None:
    damage_block(ChannelFiles.on(backup, CHANNEL).ledger, 1)
    shutil.rmtree(files.ledger.parent)
    files.lock.unlink(missing_ok=True)
    before = sorted((tmp_path / "volume").rglob("*"))
    with pytest.raises(NoBackup):
        restore(backup, tmp_path / "volume", [], quiet, force=True)
    assert sorted((tmp_path / "volume").rglob("*")) == before


def test_a_link_to_nothing_is_not_replaced(
    files: ChannelFiles, backup: Path, tmp_path: Path
) -> None:
    files.ordering.unlink()
    files.ordering.symlink_to(tmp_path / "disk")
    for work in (
        lambda: back_up(tmp_path / "volume", [CHANNEL], tmp_path / "another", quiet),
        lambda: restore(backup, tmp_path / "volume", [], quiet, force=True),
    ):
        with pytest.raises(LedgerUnusable, match=rf"{files.ordering} is a link to .*, where there"):
            work()
    assert files.ordering.is_symlink()


def test_a_backup_of_a_release_that_judged_otherwise_is_restored(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def judge(*_: object) -> None:
        raise AssertionError("it was judged again")

    back_up(sound, [CHANNEL], tmp_path / "backup", quiet)
    monkeypatch.setattr(Judging, "judge", judge)
    [report] = restore(tmp_path / "backup", tmp_path / "new", [], quiet, force=False)
    assert (report.blocks, report.judged, report.sound) == (BLOCKS, 0, True)


def test_a_file_that_grew_is_refused_before_it_is_copied(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def copy(*_: object) -> None:
        raise AssertionError("it was copied")

    monkeypatch.setattr(shutil, "copyfile", copy)
    with ChannelFiles.on(backup, CHANNEL).ledger.open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(NoBackup, match="is not as it was when the backup was made"):
        restore(backup, tmp_path / "new", [], quiet, force=False)


@pytest.mark.parametrize("changed", ['"bytes": "x"', '"bytes": 1.5', '"bytes": ' + "[" * 100_000])
def test_a_manifest_that_makes_no_sense_is_refused(
    backup: Path, tmp_path: Path, changed: str
) -> None:
    manifest = backup / MANIFEST
    manifest.write_text(re.sub(r'"bytes": \d+', changed, manifest.read_text()))
    with pytest.raises(NoBackup, match=r"cannot be read .* use another backup"):
        restore(backup, tmp_path / "new", [], quiet, force=False)


def test_a_backup_of_a_damaged_channel_replaces_nothing(
    sound: Path, files: ChannelFiles, tmp_path: Path
) -> None:
    damage_block(files.ordering, 1)
    back_up(tmp_path / "volume", [CHANNEL], tmp_path / "backup", quiet)
    target = copy_of(sound, tmp_path / "target")
    before = target.ordering.read_bytes()
    with pytest.raises(NoBackup, match=r"is damaged \(the data of block 1 does .*Nothing was rest"):
        restore(tmp_path / "backup", tmp_path / "target", [], quiet, force=True)
    assert target.ordering.read_bytes() == before
    assert verify(target, quiet).sound


@pytest.mark.parametrize(
    ("manifest", "why"),
    [
        ("{", r"manifest.json cannot be read \(JSONDecodeError"),
        ("[]", r"manifest.json cannot be read \(TypeError"),
        ('{"format": 1}', r"manifest.json cannot be read \(KeyError"),
        ('{"format": 2}', r"manifest.json has format 2; this release reads format 1"),
    ],
)
def test_a_manifest_that_makes_no_sense_is_said(
    backup: Path, tmp_path: Path, manifest: str, why: str
) -> None:
    (backup / "manifest.json").write_text(manifest)
    with pytest.raises(NoBackup, match=why):
        restore(backup, tmp_path / "new", [], quiet, force=False)


def test_of_several_channels_one_can_be_restored(sound: Path, backup: Path, tmp_path: Path) -> None:
    manifest = json.loads((backup / "manifest.json").read_text())
    manifest["channels"]["another"] = manifest["channels"][CHANNEL]
    (backup / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(NothingThere, match=rf"no channel third: it has {CHANNEL}, another"):
        restore(backup, tmp_path / "new", ["third"], quiet, force=False)
    # The files of the other one are not in the backup.
    with pytest.raises(NoBackup, match=r"ledger/another.sqlite is missing: use another backup"):
        restore(backup, tmp_path / "new", [], quiet, force=False)
    assert not list((tmp_path / "new").rglob("*.sqlite"))
    [report] = restore(backup, tmp_path / "new", [CHANNEL], quiet, force=False)
    assert report.channel == CHANNEL


def test_what_root_restores_belongs_to_the_service_s_user(backup: Path, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    if os.geteuid() == 0:  # nobody else can give files away
        os.chown(volume, 10001, 10001)
    owner = (volume.stat().st_uid, volume.stat().st_gid)
    restore(backup, volume, [], quiet, force=False)
    made = list(volume.rglob("*"))
    assert len(made) == 5
    assert {(each.stat().st_uid, each.stat().st_gid) for each in made} == {owner}
