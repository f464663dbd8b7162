"""The wire is Fabric's: descriptors meet the recorded facts, committed code its generator."""

import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

import selvedge_protos

PROTOS = Path(__file__).resolve().parents[1]
OUR_OWN = {"selvedge", "grpc"}  # the folders of what is not Fabric's
FABRIC_FILES = sorted(
    path
    for path in (file.relative_to(PROTOS) for file in PROTOS.rglob("*.proto"))
    if path.parts[0] not in OUR_OWN
)
RECORD = [
    line.split(" ", 1)
    for line in (PROTOS / "tests" / "wire_facts.txt").read_text().splitlines()
    if not line.startswith("#")
]
RECORDED = {fact for _, fact in RECORD if not fact.startswith("was ")}
REPLACED = sorted(fact.removeprefix("was ") for _, fact in RECORD if fact.startswith("was "))

# Scalars that read each other's bytes, at least for the values in use.
VARINTS = {"bool", "int32", "int64", "uint32", "uint64"}


@pytest.fixture(scope="module")
def described() -> set[str]:
    """The facts of the descriptors in the committed Python code."""
    descriptors = FileDescriptorSet()
    for path in FABRIC_FILES:
        module = import_module(
            ".".join(["selvedge_protos", *path.parent.parts, f"{path.stem}_pb2"])
        )
        assert module.DESCRIPTOR.name == path.as_posix()
        module.DESCRIPTOR.CopyToProto(descriptors.file.add())
    told = subprocess.run(
        [sys.executable, PROTOS / "facts.py"],
        input=descriptors.SerializeToString(),
        capture_output=True,
        check=True,
    )
    return set(told.stdout.decode().splitlines())


def test_every_fact_of_every_release_is_in_the_descriptors(described: set[str]) -> None:
    assert sorted(RECORDED - described) == []


def test_nothing_in_fabrics_packages_is_invented(described: set[str]) -> None:
    assert sorted(described - RECORDED) == []


@pytest.mark.parametrize("release", ["1.2", "3.1"])
def test_record_covers_every_file_of_the_release(release: str) -> None:
    files = {
        fact.split()[-1]
        for releases, fact in RECORD
        if release in releases.split(",") and fact.startswith("message ")
    }
    # Files that came later, and those that went or kept only a service.
    absent = {
        "1.2": {"gateway/gateway.proto", "peer/policy.proto"},
        "3.1": {"peer/admin.proto", "peer/peer.proto"},
    }
    assert files == {path.as_posix() for path in FABRIC_FILES} - absent[release]


@pytest.mark.parametrize("replaced", REPLACED)
def test_replaced_field_reads_the_same_bytes(replaced: str) -> None:
    *_, message, number, _, kind = replaced.split()
    (successor,) = (f for f in RECORDED if f.startswith(f"field {message} {number} "))
    assert {kind, successor.split()[-1]} <= VARINTS


def test_committed_code_is_what_the_generator_makes(tmp_path: Path) -> None:
    fresh = tmp_path / "selvedge_protos"
    subprocess.run(
        [sys.executable, PROTOS / "generate.py", "--output", fresh], check=True, timeout=50
    )
    committed = Path(selvedge_protos.__path__[0])
    assert read_tree(committed) == read_tree(fresh)


def read_tree(folder: Path) -> dict[str, bytes]:
    """Every file's bytes by its path, without what the interpreter caches."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
