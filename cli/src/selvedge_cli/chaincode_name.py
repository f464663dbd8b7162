"""Names of chaincodes, as one calls them."""

from __future__ import annotations

import re

import click

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
# Of those that Fabric keeps for itself, all but _lifecycle: no transaction that calls one is valid.
_READ_ONLY = {"cscc", "escc", "lscc", "qscc", "vscc"}


class ChaincodeName(click.ParamType[str]):
    """A chaincode's name, without a version.

    Args:
        is_submitted: a transaction is to call it, which the peer's own chaincodes do not take.
    """

    name = "chaincode"

    def __init__(self, *, is_submitted: bool = False) -> None:
        self._is_submitted = is_submitted

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Refuse what no chaincode is called."""
        name, colon, _ = value.partition(":")
        if not _NAME.fullmatch(name):
            self.fail(
                f"{value!r} is no chaincode's name: that has letters, digits, and _ . + -",
                param,
                ctx,
            )
        if colon:
            self.fail(
                f"a chaincode is called by its name without version: {name}, not {value}",
                param,
                ctx,
            )
        if self._is_submitted and name in _READ_ONLY:
            self.fail(
                f"{name} is a part of the peer, and a transaction that calls it is invalid: ask it "
                f"with `selvedge query {name} FUNCTION ARGUMENT...`",
                param,
                ctx,
            )
        return name


CHAINCODE_NAME = ChaincodeName()
SUBMITTED_CHAINCODE_NAME = ChaincodeName(is_submitted=True)
