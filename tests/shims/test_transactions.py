"""What a chaincode knows of its transaction, and how a transaction ends."""

import base64
import hashlib
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography import x509
from tests.e2e.clients import CHANNEL, ChatClient, Client, interest
from tests.e2e.stack import Stack
from tests.shims.authority import user_with_attributes
from tests.shims.chaincodes import CHAINCODES, Chaincode, every_chaincode, having, initialised
from tests.shims.conftest import require_all
from tests.shims.contract import Contract
from tests.shims.running import Running, dialling

from selvedge_protos.common import common_pb2
from selvedge_protos.peer import events_pb2

pytestmark = pytest.mark.timeout(300)  # the first test starts everything

_UNKNOWN = re.compile(
    r"there is no function|does not exist|not found in contract|Undefined contract method"
)


@every_chaincode
def test_a_chaincode_gets_its_function_and_arguments(contract: Contract) -> None:
    assert contract.json("Arguments", "", "zwei 二") == ["Arguments", "", "zwei 二"]


@every_chaincode
def test_a_chaincode_knows_its_transaction(contract: Contract) -> None:
    before = int(time.time())
    proposed = contract.endorsed("Transaction")
    known = json.loads(proposed.response.payload)
    assert (known["txid"], known["channel"]) == (proposed.txid, CHANNEL)
    assert before <= known["seconds"] <= time.time()


@having("Binding")
def test_a_chaincode_computes_what_binds_its_transaction(contract: Contract) -> None:
    proposed = contract.endorsed("Binding")
    header = common_pb2.Header.FromString(proposed.proposal.header)
    signature = common_pb2.SignatureHeader.FromString(header.signature_header)
    binding = hashlib.sha256(signature.nonce + signature.creator + bytes(8)).hexdigest()
    assert proposed.response.payload.decode() == binding


@every_chaincode
def test_a_chaincode_gets_the_signature_of_its_proposal(contract: Contract) -> None:
    proposed = contract.endorsed("Signature")
    assert proposed.response.payload.decode() == proposed.signature.hex()


@every_chaincode
def test_a_chaincode_knows_who_proposes(contract: Contract, stack: Stack) -> None:
    certificate = stack.home / "crypto" / "users" / "user1" / "msp" / "signcerts" / "cert.pem"
    creator = contract.json("Creator")
    assert creator["mspid"] == "Org1MSP"
    told = x509.load_pem_x509_certificate(creator["certificate"].encode())
    assert told == x509.load_pem_x509_certificate(certificate.read_bytes())


@having("Identity")
def test_a_chaincode_reads_the_certificate_of_who_proposes(
    contract: Contract, stack: Stack
) -> None:
    with Client(stack) as client:
        client.signer = user_with_attributes(stack.home / "ca", "ada", {"role": "auditor"})
        identity = Contract(client, contract.name).json("Identity", "role")
    assert (identity["mspid"], identity["attribute"]) == ("Org1MSP", "auditor")
    # Go and Java encode it.
    encoded = not identity["id"].startswith("x509::")
    name = base64.b64decode(identity["id"]).decode() if encoded else identity["id"]
    assert re.fullmatch(r"x509::.*CN=ada.*::.*CN=Selvedge identity root.*", name)
    assert contract.json("Identity", "role")["attribute"] == ""


@every_chaincode
def test_a_chaincode_gets_transient_data(contract: Contract, unique: str) -> None:
    data = {"it": unique.encode(), "other": b"no"}
    proposed = contract.endorsed("Transient", "it", transient=data)
    assert proposed.response.payload == unique.encode()


@every_chaincode
def test_its_event_reaches_who_registered_for_it(
    contract: Contract, stack: Stack, unique: str
) -> None:
    named = interest(events_pb2.CHAINCODE, contract.name, "Told")
    with ChatClient(stack, [named]) as consumer:
        txid = contract.submit("Event", "Told", unique)
        event = consumer.next().chaincode_event
    assert (event.chaincode_id, event.event_name, event.tx_id, event.payload.decode()) == (
        contract.name,
        "Told",
        txid,
        unique,
    )


@every_chaincode
def test_an_error_is_told_and_nothing_is_written(contract: Contract, unique: str) -> None:
    proposed = contract.propose("Fail", unique, f"{unique} is refused")
    assert proposed.response.status == 500
    assert f"{unique} is refused" in proposed.response.message
    assert not proposed.answer.HasField("endorsement")
    assert contract.text("Get", unique) == ""


@every_chaincode
def test_a_panic_fails_its_transaction_and_nothing_else(contract: Running, unique: str) -> None:
    contract.submit("Put", unique, "kept")
    sentence = contract.refusal("Panic", "on purpose")
    if contract.chaincode.dies:
        assert "stream terminated" in sentence
        contract.start()
    assert contract.text("Get", unique) == "kept"


@every_chaincode
def test_a_chaincode_that_was_killed_is_welcome_back(contract: Running, unique: str) -> None:
    contract.submit("Put", unique, "kept")
    contract.kill()
    contract.start()
    assert contract.text("Get", unique) == "kept"


@every_chaincode
def test_many_transactions_run_at_once(contract: Contract, unique: str) -> None:
    contract.submit("PutSeries", unique, "40")
    with ThreadPoolExecutor(20) as pool:
        keys = [f"{unique}-{number:03}" for number in range(40)]
        values = list(pool.map(lambda key: contract.text("Get", key), keys))
    assert values == [str(number) for number in range(40)]


@every_chaincode
def test_an_unknown_function_is_refused(contract: Contract) -> None:
    assert _UNKNOWN.search(contract.refusal("NoSuchFunction"))


@pytest.mark.parametrize(
    ("contract", "function"),
    [(each, function) for each in CHAINCODES for function in sorted(each.lacks)],
    ids=str,
    indirect=["contract"],
)
def test_what_its_shim_lacks_a_chaincode_refuses(contract: Contract, function: str) -> None:
    assert _UNKNOWN.search(contract.refusal(function))


@pytest.mark.parametrize("chaincode", CHAINCODES, ids=str)
def test_init_comes_once_and_before_all_else(
    stack: Stack, client: Client, chaincode: Chaincode, tmp_path: Path
) -> None:
    require_all(chaincode)
    contract = dialling(stack, client, chaincode, tmp_path, initialised(chaincode))
    try:
        contract.start()
        assert "has not been initialized" in contract.refusal("Get", "key")
        contract.commit(contract.propose("Put", "key", "by Init", is_init=True))
        assert contract.text("Get", "key") == "by Init"
        again = contract.propose("Put", "key", "by another", is_init=True)
        assert "already initialized" in again.response.message
    finally:
        contract.stop()
