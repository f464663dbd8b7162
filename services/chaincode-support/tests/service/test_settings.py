"""Settings that make no sense are refused by name, before anything is opened."""

from typing import Any

import pytest

from chaincode_support import config
from selvedge_common.config import ConfigError


def test_the_defaults_make_sense() -> None:
    assert config.read().peer.grace_period > 0


@pytest.mark.parametrize("key", ["peer.validatorPoolSize", "chaincode.keepalive"])
def test_what_zero_switches_off_cannot_be_less(key: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("CORE_" + key.upper().replace(".", "_"), "-1")
    with pytest.raises(ConfigError, match=f"{key} is -1, expected 0 or more"):
        config.read()


@pytest.mark.parametrize(
    "key",
    [
        "peer.gracePeriod",
        "peer.keepalive.interval",
        "peer.keepalive.timeout",
        "peer.keepalive.minInterval",
        "orderer.batchTimeout",
    ],
)
@pytest.mark.parametrize("value", ["0s", "-1s"])
def test_a_time_must_be_above_zero(key: str, value: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("CORE_" + key.upper().replace(".", "_"), value)
    with pytest.raises(ConfigError, match=rf"{key} is -?\d, expected a value above 0"):
        config.read()
