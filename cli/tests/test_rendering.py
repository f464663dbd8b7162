"""What people read of a record."""

import json
import os
import pty
import subprocess
import sys

import click
import pytest

from selvedge_cli.rendering import render

EVENT = {"type": "chaincode", "chaincode": "cc", "name": "A", "txid": "1", "payload": "{}"}
TRANSACTION = {"txid": "1", "kind": "ENDORSER_TRANSACTION", "code": "VALID", "chaincode": "cc"}
CONFIG = {"txid": "", "kind": "CONFIG", "code": "VALID"}
UNREADABLE = {"txid": "", "kind": "UNREADABLE", "code": "BAD_PAYLOAD", "error": "no envelope"}
PRINTING = (
    "from selvedge_cli.rendering import Printer\n"
    f"Printer(False, None).print({EVENT | {'block': 7}!r})"
)


def test_a_stranger_s_text_neither_commands_the_terminal_nor_fakes_a_line() -> None:
    record = {
        "type": "chaincode",
        "chaincode": "cc",
        "name": "\x1b[31mred\nblock 7",
        "txid": "ab",
        "payload": "a\rb",
    }
    line = render(record, as_json=False)
    assert line.isprintable()
    assert "\\x1b[31mred\\nblock 7" in line
    assert json.loads(render(record, as_json=True)) == record


@pytest.mark.parametrize(
    ("record", "line"),
    [
        (EVENT, "chaincode cc.A  tx 1  {}"),
        (EVENT | {"txid": ""}, "chaincode cc.A  {}"),
        (EVENT | {"payload": ""}, "chaincode cc.A  tx 1"),
        (EVENT | {"block": 7}, "chaincode 7  cc.A  tx 1  {}"),
        (
            TRANSACTION | {"type": "rejection", "block": 7, "code": "MVCC_READ_CONFLICT"},
            "rejection 7  tx 1 MVCC_READ_CONFLICT cc",
        ),
        (
            TRANSACTION | {"type": "transaction", "block": 7, "function": "set", "event": "A"},
            "transaction 7  tx 1 VALID cc.set set A",
        ),
        (
            {"type": "block", "number": 7, "hash": 32 * "a", "transactions": [CONFIG, UNREADABLE]},
            f"block 7  hash {16 * 'a'}…  CONFIG VALID; UNREADABLE BAD_PAYLOAD no envelope",
        ),
        (
            {"type": "filtered", "number": 7, "transactions": [TRANSACTION | {"events": [EVENT]}]},
            "filtered 7  tx 1 VALID cc.A",
        ),
    ],
)
def test_colours_change_nothing_of_what_is_said(record: dict[str, object], line: str) -> None:
    assert render(record, as_json=False) == line
    coloured = render(record, as_json=False, colours=True)
    assert coloured != line
    assert click.unstyle(coloured) == line


@pytest.mark.parametrize(("variables", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours_are_for_terminals_whose_users_want_them(
    variables: dict[str, str], coloured: bool
) -> None:
    ours, theirs = pty.openpty()
    environment = {key: value for key, value in os.environ.items() if key != "NO_COLOR"}
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        subprocess.run(
            [sys.executable, "-c", PRINTING],
            stdout=theirs,
            env=environment | variables,
            check=True,
        )
        shown = terminal.read(1000).decode()
        os.close(theirs)
    assert ("\x1b[" in shown) is coloured
    assert click.unstyle(shown).strip() == "chaincode 7  cc.A  tx 1  {}"
    piped = subprocess.run(
        [sys.executable, "-c", PRINTING],
        capture_output=True,
        env=environment | variables,
        check=True,
    )
    assert b"\x1b[" not in piped.stdout
