"""Tell what a protobuf descriptor set says about the wire, one line for each fact.

    python protos/facts.py < descriptors.binpb           print the facts
    python protos/facts.py 3.2 < descriptors.binpb       record them as facts of release 3.2

The input is a serialised `google.protobuf.FileDescriptorSet`, which `protoc --descriptor_set_out`
writes. Only files that this project has are told about. The record, `tests/wire_facts.txt`, is what
`tests/test_wire.py` holds the project's own files against; its head explains the lines.
"""

import argparse
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

SOURCES = Path(__file__).resolve().parent
RECORD = SOURCES / "tests" / "wire_facts.txt"


def main() -> None:
    """Read the command line and a descriptor set from standard input; print or record its facts."""
    parser = argparse.ArgumentParser(description="Tell the wire facts of a descriptor set.")
    parser.add_argument("release", nargs="?", help="record the facts under this release")
    release: str | None = parser.parse_args().release
    facts = describe(FileDescriptorSet.FromString(sys.stdin.buffer.read()))
    if release is None:
        print(*sorted(facts, key=reading_order), sep="\n")
    else:
        RECORD.write_text(record(RECORD.read_text(), release, facts))


def describe(descriptors: FileDescriptorSet) -> Iterator[str]:
    """Yield the facts of those files that the project has, too."""
    for file in descriptors.file:
        if not (SOURCES / file.name).is_file():
            continue
        for message in file.message_type:
            yield from describe_message(message, file.package, file.name)
        for enum in file.enum_type:
            yield from describe_enum(enum, file.package)
        for service in file.service:
            yield from describe_service(service, file.package)


def describe_message(message: DescriptorProto, scope: str, file: str) -> Iterator[str]:
    """Yield a message's own facts and those of everything nested in it."""
    name = f"{scope}.{message.name}"
    entries = {f".{name}.{m.name}": m for m in message.nested_type if m.options.map_entry}
    yield f"message {name} {file}"
    for field in message.field:
        words = [f"field {name} {field.number} {field.name} {type_of(field, entries)}"]
        if field.HasField("oneof_index"):
            words.append(f"oneof {message.oneof_decl[field.oneof_index].name}")
        yield " ".join(words)
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from describe_message(nested, name, file)
    for enum in message.enum_type:
        yield from describe_enum(enum, name)


def type_of(field: FieldDescriptorProto, entries: dict[str, DescriptorProto]) -> str:
    """Give a field's type as a .proto file spells it, with its label."""
    if entry := entries.get(field.type_name):
        key, value = (type_of(part, {}) for part in entry.field)
        return f"map<{key},{value}>"
    scalar = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    name = field.type_name.removeprefix(".") or scalar
    return f"repeated {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name


def describe_enum(enum: EnumDescriptorProto, scope: str) -> Iterator[str]:
    """Yield an enum's values."""
    for value in enum.value:
        yield f"value {scope}.{enum.name} {value.number} {value.name}"


def describe_service(service: ServiceDescriptorProto, scope: str) -> Iterator[str]:
    """Yield a service's methods."""
    for method in service.method:
        request = "stream " * method.client_streaming + method.input_type.removeprefix(".")
        response = "stream " * method.server_streaming + method.output_type.removeprefix(".")
        yield f"rpc {scope}.{service.name} {method.name} {request} -> {response}"


def reading_order(fact: str) -> tuple[str, bool, int, str]:
    """Sort by owner; a message's own line before its fields, those by their numbers."""
    kind, owner, detail, *_ = fact.removeprefix("was ").split()
    return owner, kind != "message", int(detail) if detail.isdecimal() else 0, fact


def record(text: str, release: str, facts: Iterable[str]) -> str:
    """Add a release to the record. Lines marked `was` keep their mark: people decide on those."""
    lines = text.splitlines()
    releases: dict[str, set[str]] = {}
    for line in lines:
        if line and not line.startswith("#"):
            known, fact = line.split(" ", 1)
            releases[fact] = set(known.split(","))
    for fact in facts:
        marked = f"was {fact}" if f"was {fact}" in releases else fact
        releases.setdefault(marked, set()).add(release)
    head = [line for line in lines if line.startswith("#")]
    body = (
        f"{','.join(sorted(releases[fact]))} {fact}" for fact in sorted(releases, key=reading_order)
    )
    return "\n".join([*head, *body]) + "\n"


if __name__ == "__main__":
    main()
