"""A channel's people and papers, made at run time: an organisation, its members, transactions."""

import asyncio
import datetime
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chaincode_support.chain import make_validator
from chaincode_support.channel import Channel
from chaincode_support.deliver import BlockReader, Deliver, Readable, add_peer_deliver, one_by_one
from chaincode_support.ledger import CheckedTransaction, Ledger
from chaincode_support.ledger.committer import Committer
from chaincode_support.ledger.validation import Validator
from chaincode_support.ordering import EmbeddedOrdering, OrderingSettings, SqliteLog
from chaincode_support.ordering.broadcast import Broadcast, OrderedChannel
from chaincode_support.ordering.service import add_atomic_broadcast
from selvedge_common.comm import GRPCServer, ServerConfig
from selvedge_common.msp import MSP, SigningIdentity
from selvedge_common.protoutil import blocks, config_block, endorsements, proposals
from selvedge_common.protoutil.responses import Backlog
from selvedge_protos.common import common_pb2
from selvedge_protos.ledger.rwset import rwset_pb2
from selvedge_protos.ledger.rwset.kvrwset import kv_rwset_pb2
from selvedge_protos.peer import (
    chaincode_pb2,
    proposal_pb2,
    proposal_response_pb2,
    transaction_pb2,
)

CHANNEL = "mychannel"
CHAINCODE = "basic"
VERSION = "1.0"
BATCH = config_block.Batch(500, 1 << 20, 1 << 19, "5ms")
AGE = datetime.timedelta(hours=2)  # of certificates


class Organisation:
    """A certificate authority and the members it makes."""

    def __init__(self, mspid: str) -> None:
        self.mspid = mspid
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"ca.{mspid}")])
        key_usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        self._certificate = (
            self._builder(self._name, self._key.public_key(), datetime.timedelta(days=7))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .sign(self._key, hashes.SHA256())
        )
        self.msp = MSP(mspid, [self._certificate])

    def issue(
        self,
        role: str,
        name: str,
        valid: datetime.timedelta = datetime.timedelta(hours=1),
        folder: Path | None = None,
        *,
        age: datetime.timedelta = AGE,
    ) -> SigningIdentity:
        """A member with the role's OU, saved as an MSP folder if one is given.

        With a negative `valid` its certificate has run out already; with a negative `age` it is
        not valid yet, and with more than AGE it began before the authority's own.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name(
            [
                x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role),
                x509.NameAttribute(NameOID.COMMON_NAME, name),
            ]
        )
        key_usage = x509.KeyUsage(True, False, False, False, False, False, False, False, False)
        certificate = (
            self._builder(subject, key.public_key(), valid, age)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(key_usage, critical=True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        if folder is not None:
            _save(folder, certificate, key)
        return SigningIdentity(self.mspid, certificate, key)

    def issue_tls(
        self,
        name: str,
        *uris: str,
        host: str = "localhost",
        valid: datetime.timedelta = datetime.timedelta(hours=1),
    ) -> tuple[bytes, bytes]:
        """(certificate, key) in PEM for TLS on a host, as a server or a client."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        names = x509.SubjectAlternativeName(
            [x509.DNSName(host), *map(x509.UniformResourceIdentifier, uris)]
        )
        certificate = (
            self._builder(subject, key.public_key(), valid)
            .add_extension(names, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)

    @property
    def root(self) -> bytes:
        """The authority's certificate in PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(
        self,
        subject: x509.Name,
        key: ec.EllipticCurvePublicKey,
        valid: datetime.timedelta,
        age: datetime.timedelta = AGE,
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - age)
            .not_valid_after(now + valid)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        )


def _save(folder: Path, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
    pem = serialization.Encoding.PEM
    for name in ("signcerts", "keystore"):
        (folder / name).mkdir(parents=True)
    (folder / "signcerts" / "cert.pem").write_bytes(certificate.public_bytes(pem))
    (folder / "keystore" / "key.pem").write_bytes(_key_pem(key))


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class Network:
    """One organisation with a peer, a client and an orderer, and a stranger of another one."""

    def __init__(self) -> None:
        self.organisation = Organisation("Org1MSP")
        self.client = self.organisation.issue("client", "user1")
        self.peer = self.organisation.issue("peer", "peer0")
        self.orderer = self.organisation.issue("orderer", "orderer0")
        self.stranger = Organisation("OtherMSP").issue("client", "mallory")
        self.msps: Mapping[str, MSP] = {"Org1MSP": self.organisation.msp}

    def genesis(self) -> common_pb2.Block:
        """Block 0 of the channel."""
        return config_block.genesis_block(
            CHANNEL, [self.organisation.msp.config()], ["localhost:7050"], BATCH
        )

    def validator(self, workers: int = 1) -> Validator:
        """What checks transactions by the configuration in block 0."""
        return validator_of(config_block.open_config(self.genesis()), workers)

    def propose(
        self,
        *args: bytes,
        client: SigningIdentity | None = None,
        channel: str = CHANNEL,
        chaincode: str = CHAINCODE,
    ) -> tuple[proposal_pb2.Proposal, str, SigningIdentity]:
        """A proposal to run the chaincode, its transaction id, and who made it."""
        client = client or self.client
        proposal, txid = proposals.create_proposal(channel, chaincode, args, client.serialized)
        return proposal, txid, client

    def endorse(
        self,
        proposed: tuple[proposal_pb2.Proposal, str, SigningIdentity],
        results: bytes,
        *,
        endorsers: Sequence[SigningIdentity] = (),
        events: bytes = b"",
    ) -> common_pb2.Envelope:
        """The signed transaction of a proposal that gave these results; the peer endorses it
        unless others do."""
        proposal, _, client = proposed
        opened = proposals.open_proposal(proposals.sign_proposal(proposal, client))
        responses = [
            endorsements.create_proposal_response(
                opened,
                proposal_response_pb2.Response(status=200),
                results,
                events,
                chaincode_pb2.ChaincodeID(name=opened.chaincode, version=VERSION),
                endorser,
            )
            for endorser in endorsers or [self.peer]
        ]
        return endorsements.create_transaction(proposal, responses, client)

    def transaction(self, results: bytes = b"") -> tuple[str, bytes]:
        """(txid, marshalled envelope) of a sound transaction with these results."""
        proposed = self.propose(b"invoke")
        return proposed[1], self.endorse(proposed, results).SerializeToString()


def validator_of(configuration: config_block.ChannelConfig, workers: int = 1) -> Validator:
    """What checks transactions by a configuration; chaincodes have the policies by default."""
    return make_validator(CHANNEL, configuration.policies, configuration.msps, workers)


def writes(**values: bytes) -> bytes:
    """Results that read nothing and write these keys of the chaincode."""
    rwset = kv_rwset_pb2.KVRWSet(
        writes=[
            kv_rwset_pb2.KVWrite(key=key, value=values[key], is_delete=not values[key])
            for key in sorted(values)
        ]
    )
    return results_of({CHAINCODE: rwset})


def results_of(rwsets: Mapping[str, kv_rwset_pb2.KVRWSet]) -> bytes:
    """The marshalled TxReadWriteSet with these namespaces."""
    return rwset_pb2.TxReadWriteSet(
        ns_rwset=[
            rwset_pb2.NsReadWriteSet(namespace=name, rwset=rwset.SerializeToString())
            for name, rwset in rwsets.items()
        ]
    ).SerializeToString()


async def add_block(network: Network, ledger: Ledger, *envelopes: bytes) -> list[str]:
    """Check and commit the next block, as the committer does; the names of its codes.

    Block 0 comes first when there is none yet.
    """
    if not ledger.height:
        genesis = CheckedTransaction(transaction_pb2.VALID, type=common_pb2.CONFIG)
        await ledger.commit(network.genesis(), [genesis])
    block = blocks.new_block(ledger.height, ledger.last_hash, envelopes)
    validator = network.validator()
    checked = await validator.check(block)
    validator.close()
    await ledger.commit(block, checked)
    return code_names(block.metadata.metadata[common_pb2.TRANSACTIONS_FILTER])


def fill_disk(writer: sqlite3.Connection) -> None:
    """SQLite itself finds no room from now on, as on a full disk: the file may not grow."""
    writer.execute("PRAGMA max_page_count = 1")


def make_room(writer: sqlite3.Connection) -> None:
    """Undo fill_disk()."""
    writer.execute("PRAGMA max_page_count = 1000000")


def code_names(codes: bytes) -> list[str]:
    """Names of the codes in a TRANSACTIONS_FILTER."""
    return [
        transaction_pb2.TxValidationCode.Name(transaction_pb2.TxValidationCode.ValueType(code))
        for code in codes
    ]


class Service:
    """The ordering, the ledger behind it, and both their services, on a real gRPC server."""

    def __init__(
        self,
        network: Network,
        folder: Path,
        settings: OrderingSettings,
        server: ServerConfig | None = None,
        *,
        max_streams: int = 20,
        broadcast_streams: int = 100,
        pipeline: int = 50,
        blocks_ahead: int = 100,
        bytes_ahead: int = 1 << 30,
        max_envelope_bytes: int = 1 << 20,
    ) -> None:
        self.network = network
        log = SqliteLog.open(folder / "ordering", CHANNEL)
        self.ordering = EmbeddedOrdering.open(
            log, CHANNEL, network.orderer, settings, network.genesis
        )
        self.ledger = Ledger.open(folder / "ledger", CHANNEL)
        configuration = config_block.open_config(blocks.parse_block(self.ordering.block(0)))
        channel = Channel(
            CHANNEL,
            self.ledger,
            configuration.msps,
            configuration.policies,
        )
        self._validator = validator_of(configuration)
        self.committer = Committer(
            self.ordering,
            self.ledger,
            self._validator,
            blocks_ahead=blocks_ahead,
            bytes_ahead=bytes_ahead,
        )
        ordered = OrderedChannel(
            channel, self.ordering, max_envelope_bytes, self.committer.check_committing
        )
        broadcast = Broadcast({CHANNEL: ordered}, max_streams=broadcast_streams, pipeline=pipeline)
        config = server or ServerConfig()
        self.server = GRPCServer("127.0.0.1:0", config)

        backlog = Backlog(256 * 1024 * 1024, 2 * max_streams)

        self._committed_blocks = BlockReader(
            CHANNEL, self.ledger, self.ledger.blocks, self.ledger.held
        )
        self._ordered_blocks = BlockReader(CHANNEL, self.ordering, one_by_one(self.ordering))

        def deliver(source: BlockReader) -> Deliver:
            return Deliver(
                {CHANNEL: Readable(channel, source)},
                mutual_tls=config.secure.require_client_certificate,
                max_streams=max_streams,
                backlog=backlog,
            )

        add_atomic_broadcast(self.server, broadcast, deliver(self._ordered_blocks))
        add_peer_deliver(self.server, deliver(self._committed_blocks))

    async def __aenter__(self) -> "Service":
        self.committing = asyncio.create_task(self.committer.run())
        await self.server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.server.stop(0)
        self.committing.cancel()
        await asyncio.gather(self.committing, return_exceptions=True)
        await asyncio.gather(self._committed_blocks.close(), self._ordered_blocks.close())
        self._validator.close()
        await self.ordering.close()
        self.ledger.close()

    @property
    def port(self) -> str:
        """The port it listens on."""
        return self.server.address.rpartition(":")[2]
