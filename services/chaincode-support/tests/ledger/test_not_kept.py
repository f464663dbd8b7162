"""What this ledger does not keep is refused by name, and leaves no trace in the results."""

from collections.abc import Callable

import pytest
from testchannel import CHAINCODE

from chaincode_support.ledger import Ledger, NotKept, Simulator

Ask = Callable[[Simulator], object]

PRIVATE: list[Ask] = [
    lambda simulator: simulator.get_private(CHAINCODE, "secrets", "k"),
    lambda simulator: simulator.get_private_hash(CHAINCODE, "secrets", "k"),
    lambda simulator: simulator.put_private(CHAINCODE, "secrets", "k", b"x"),
    lambda simulator: simulator.delete_private(CHAINCODE, "secrets", "k"),
    lambda simulator: simulator.purge_private(CHAINCODE, "secrets", "k"),
    lambda simulator: simulator.private_range(CHAINCODE, "secrets", "a", "b"),
    lambda simulator: simulator.private_query(CHAINCODE, "secrets", "{}"),
    lambda simulator: simulator.get_private_metadata(CHAINCODE, "secrets", "k"),
    lambda simulator: simulator.put_private_metadata(CHAINCODE, "secrets", "k", {"n": b"x"}),
]


@pytest.mark.parametrize("ask", PRIVATE)
def test_private_data_is_refused_with_the_name_of_the_collection(ledger: Ledger, ask: Ask) -> None:
    simulator = ledger.simulator("tx")
    with pytest.raises(NotKept, match=r"Private data is not kept .* collection 'secrets'"):
        ask(simulator)
    assert simulator.results() == b""
    simulator.close()


def test_rich_queries_are_refused_with_what_there_is_instead(ledger: Ledger) -> None:
    simulator = ledger.simulator("tx")
    with pytest.raises(NotKept, match=r"Rich queries are not answered .* read keys or ranges"):
        simulator.query(CHAINCODE, '{"selector": {}}', 0, "")
    assert simulator.results() == b""
    simulator.close()
