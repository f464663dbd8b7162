"""Settings that make no sense are refused by name, before anything is opened."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaincode_support import config
from selvedge_common.config import ConfigError, Duration, Size


def numbers(section: Any, path: str = "") -> Iterator[tuple[str, type]]:
    """The folded paths of all durations, sizes and counts below a section, with their types."""
    for field in dataclasses.fields(section):
        value, key = getattr(section, field.name), f"{path}{field.name.replace('_', '')}"
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{key}.")
        elif isinstance(value, float | int) and not isinstance(value, bool):
            yield key, type(value)


NUMBERS = list(numbers(config.read()))
OUT_OF_BOUNDS = {
    Duration: ("0s", "-1s", "577h"),
    Size: ("0", "100", "2GB"),
    int: ("-1", "3000000000"),
}


def test_the_defaults_make_sense() -> None:
    assert config.read().peer.grace_period > 0


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, kind in NUMBERS for value in OUT_OF_BOUNDS[kind]],
)
def test_every_number_has_bounds(key: str, value: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("CORE_" + key.upper().replace(".", "_"), value)
    with pytest.raises(ConfigError, match=rf"(?i){key} is '{value}', but must be .*from "):
        config.read()


@pytest.mark.parametrize("key", ["peer.validatorPoolSize", "chaincode.keepalive"])
def test_zero_switches_off_what_can_be_off(key: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("CORE_" + key.upper().replace(".", "_"), "0")
    config.read()


@pytest.mark.parametrize("key", [key for key, kind in NUMBERS if "limits" in key])
def test_no_limit_can_be_zero(key: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("CORE_" + key.upper().replace(".", "_"), "0")
    with pytest.raises(ConfigError, match=rf"(?i){key} is '0', but must be from "):
        config.read()


@pytest.mark.parametrize("address", ["9443", "localhost:x", "localhost:65536"])
def test_the_operations_address_is_one(address: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("CORE_OPERATIONS_LISTENADDRESS", address)
    with pytest.raises(ConfigError, match=r"operations\.listenAddress is .* must be host:port"):
        config.read()


@pytest.mark.parametrize("key", ["absoluteMaxBytes", "preferredMaxBytes"])
def test_a_block_that_nobody_can_be_sent_is_refused_at_the_start(
    key: str, monkeypatch: Any
) -> None:
    monkeypatch.setenv("CORE_ORDERER_BATCHSIZE_" + key.upper(), "99MB")
    assert config.read()
    monkeypatch.setenv("CORE_ORDERER_BATCHSIZE_" + key.upper(), str((99 << 20) + 1))
    with pytest.raises(ConfigError, match=rf"orderer\.batchSize\.{key} is .*maxSendMsgSize"):
        config.read()


@pytest.mark.parametrize("address", ["0.0.0.0:7052", "[::]:7052"])
def test_chaincode_is_told_an_address_that_it_can_dial(address: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("CORE_PEER_CHAINCODEADDRESS", address)
    with pytest.raises(
        ConfigError, match=r"peer\.chaincodeAddress is .* must be where a chaincode"
    ):
        config.read()


def test_pauses_between_launches_grow(monkeypatch: Any) -> None:
    monkeypatch.setenv("CORE_CHAINCODE_RELAUNCH_FIRSTPAUSE", "31s")
    with pytest.raises(
        ConfigError, match=r"firstPause \(31s\) is longer than longestPause \(30s\)"
    ):
        config.read()


def test_packages_lie_where_they_are_said_to(monkeypatch: Any) -> None:
    assert config.read().chaincode.packages is None
    monkeypatch.setenv("CORE_CHAINCODE_PACKAGES", "/srv/chaincodes")
    assert config.read().chaincode.packages == Path("/srv/chaincodes")
