"""Settings that make no sense are refused with their key."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from certificate_authority import config
from selvedge_common.config import ConfigError


def test_the_packaged_settings_are_good() -> None:
    assert config.load(environ={}).ca.name == "ca"


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ca.tokens.lifetime", "-5m"),
        ("ca.tokens.lifetime", "0"),
        ("ca.tokens.remembered", "-1s"),
        ("ca.tokens.remembered", "90000000h"),
        ("ca.lifetimes.backdate", "-1s"),
        *(
            (f"ca.lifetimes.{name}", value)
            for name in (
                *("root", "tlsServer", "tlsClient", "peer"),
                *("orderer", "user", "admin", "chaincode", "producer"),
            )
            for value in ("0", "-1h", "90000000h")
        ),
        ("ca.limits.maxRequestBytes", "0"),
        ("ca.limits.maxRequestBytes", "4096MB"),
        ("ca.limits.requestsPerSecond", "0"),
        ("ca.limits.burst", "0"),
        ("ca.limits.maxConcurrentStreams", "0"),
        ("ca.limits.maxConcurrentStreams", "-1"),
        ("ca.limits.stopGrace", "-1s"),
        ("ca.listenAddress", "7055"),
        ("ca.address", "ca:0"),
        ("ca.address", "ca"),
        ("operations.listenAddress", "localhost:65536"),
    ],
)
def test_a_setting_out_of_its_range_is_named(key: str, value: str) -> None:
    variable = f"CORE_{key.upper().replace('.', '_')}"
    with pytest.raises(ConfigError, match=rf"{variable}: {key} is '{value}', but must be "):
        config.load(environ={variable: value})


@pytest.mark.parametrize("key", ["ca.tokens.remembered", "ca.limits.stopGrace"])
def test_zero_is_a_duration_where_it_makes_sense(key: str) -> None:
    config.load(environ={f"CORE_{key.upper().replace('.', '_')}": "0"})


def test_a_namespace_that_is_no_host_name_is_shown() -> None:
    with pytest.raises(ConfigError, match="ca: namespace is 'my_ns', but must"):
        config.load(environ={"CORE_CA_NAMESPACE": "my_ns"})


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"name": "a", "folder": "b"}, "enrolment: 2 members have the name a"),
        ({"name": "b", "folder": "a"}, "enrolment: 2 members have the folder /enrol/a"),
    ],
)
def test_members_do_not_share_a_name_or_a_folder(
    tmp_path: Path, other: dict[str, str], words: str
) -> None:
    members = [
        {"profiles": ["peer"], "extraSans": []} | member
        for member in ({"name": "a", "folder": "a"}, other)
    ]
    file = tmp_path / "ca.yaml"
    file.write_text(json.dumps({"enrolment": {"members": members}}))
    with pytest.raises(ConfigError, match=words):
        config.load(file, environ={})
