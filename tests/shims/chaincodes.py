"""The chaincodes that the tests run: one contract on each shim, and what a shim has no call for."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from tests.shims import build
from tests.shims.build import HERE, Product

PEER = "localhost:7052"

_PAGES = frozenset({"ListPage", "ListCompositePage"})
_POLICIES = frozenset({"SetPolicy", "GetPolicy"})
# They came with Fabric 3.1, and to the Go shim alone.
_OF_3_1 = frozenset({"GetMany", "Batch", "ListEveryComposite"})


@dataclass(frozen=True)
class Command:
    """How a program is started."""

    words: Sequence[str | Path]
    folder: Path = HERE
    environment: Mapping[str, str] = field(default_factory=dict)

    def within(self, environment: Mapping[str, str]) -> Command:
        """The same with more variables."""
        return replace(self, environment={**environment, **self.environment})


@dataclass(frozen=True)
class Chaincode:
    """One contract on one shim.

    Attributes:
        name: under which it registers, and its certificate's.
        command: the command that has it dial the peer, given the name to register.
        products: what is built for it.
        runtime: the program that runs it, if there is one.
        lacks: functions of the contract that this shim has no call for.
        dies: whether its process ends when the contract panics.
    """

    name: str
    command: Callable[[str], Command]
    products: tuple[Product, ...] = ()
    runtime: str | None = None
    lacks: frozenset[str] = frozenset()
    dies: bool = False

    def __str__(self) -> str:
        return self.name

    def missing(self) -> list[str]:
        """The programs that are wanted, to build it or to run it, and not here."""
        wanted = [self.runtime] if self.runtime else []
        for product in self.products:
            wanted += () if product.built else product.needs
        return [program for program in wanted if shutil.which(program) is None]


def _python(_: str) -> Command:
    return Command([sys.executable, HERE / "python" / "contract.py"])


def _node_22(registered: str) -> Command:
    dial = ("--peer.address", PEER, "--chaincode-id-name", registered)
    modules = build.NODE_22.build() / "node_modules"
    return Command(["node", "index.js", *dial], HERE / "node" / "2.2", {"NODE_PATH": str(modules)})


def _node_25(registered: str) -> Command:
    dial = ("--peer.address", PEER, "--chaincode-id-name", registered)
    return fabric_chaincode_node("start", *dial)


def fabric_chaincode_node(*words: str) -> Command:
    """The program of `fabric-shim` 2.5 that runs contracts."""
    modules = build.NODE_25.build() / "node_modules"
    return Command(
        ["node", modules / ".bin" / "fabric-chaincode-node", *words],
        HERE / "node" / "2.5",
        {"NODE_PATH": str(modules)},
    )


def _go(program: str) -> Callable[[str], Command]:
    return lambda _: Command([build.GO.build() / program, "-peer.address", PEER])


def _java(_: str) -> Command:
    classpath = f"{build.CLASSES.build()}:{build.JARS.build()}/*"
    # The compiler that the JVM's start needs most is the quick one.
    jvm = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m")
    return Command(
        ["java", *jvm, "-cp", classpath, "org.hyperledger.fabric.contract.ContractRouter"]
    )


NODE_22 = Chaincode("node-22", _node_22, (build.NODE_22,), "node", _OF_3_1)
NODE_25 = Chaincode("node-25", _node_25, (build.NODE_25,), "node", _OF_3_1)
GO_V1 = Chaincode("go-v1", _go("shim-v1"), (build.GO,), lacks=_OF_3_1, dies=True)
GO_V2 = Chaincode("go-v2", _go("shim-v2"), (build.GO,), dies=True)
GO_CONTRACT = Chaincode("go-contract", _go("contract-api"), (build.GO,), dies=True)
JAVA = Chaincode("java", _java, (build.JARS, build.CLASSES), "java", _OF_3_1)
PYTHON = Chaincode(
    "python",
    _python,
    lacks=_OF_3_1 | _PAGES | _POLICIES | {"History", "Call", "Identity", "Binding", "PeerMspid"},
)

CHAINCODES = (NODE_22, NODE_25, GO_V1, GO_V2, GO_CONTRACT, JAVA, PYTHON)


def initialised(chaincode: Chaincode) -> str:
    """The name under which a chaincode needs its Init run before it is invoked."""
    return f"{chaincode.name}-init"


def having(*functions: str) -> pytest.MarkDecorator:
    """Run a test with the chaincodes that have all these functions: the fixture `contract`."""
    chosen = [chaincode for chaincode in CHAINCODES if not chaincode.lacks.intersection(functions)]
    return pytest.mark.parametrize("contract", chosen, ids=str, indirect=True)


every_chaincode = having()
