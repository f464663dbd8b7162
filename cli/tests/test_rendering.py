"""What people read of a record."""

import json

from selvedge_cli.rendering import render


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
