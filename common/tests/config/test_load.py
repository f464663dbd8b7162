"""A tree of dataclasses from packaged YAML, an operator's file and CORE_* variables."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from selvedge_common.config import (
    ConfigError,
    Duration,
    HostPort,
    Like,
    Range,
    Size,
    load,
    loader,
    misspelt,
    variables,
)

DEFAULTS = """
peer:
  listenAddress: 0.0.0.0:7051
  localMspId: Org1MSP
  fileSystemPath: /var/lib/service
  tls:
    enabled: true
    clientRootCAs: []
  events:
    buffersize: 100
    timeout: 10ms
    maxBytes: 100MB
    ratio: 0.5
  proxy: null
  note: null
logging:
  format: json
  labels: {}
sources: []
"""


@dataclass(frozen=True)
class Tls:
    enabled: bool
    client_root_cas: list[str]


@dataclass(frozen=True)
class Events:
    buffersize: Annotated[int, Range(-100, 100)]
    timeout: Annotated[Duration, Range("-2h", "2h")]
    max_bytes: Annotated[Size, Range(0, "1GB")]
    ratio: float

    def __post_init__(self) -> None:
        if self.buffersize == 13:
            raise ValueError("buffersize 13 brings bad luck; choose another.")


@dataclass(frozen=True)
class Proxy:
    address: str


@dataclass(frozen=True)
class Peer:
    listen_address: str
    local_msp_id: str
    file_system_path: Path
    tls: Tls
    events: Events
    proxy: Proxy | None
    note: str | None


@dataclass(frozen=True)
class Logging:
    format: Literal["json", "console"]
    labels: dict[str, int]


@dataclass(frozen=True)
class Source:
    address: str
    weight: int


@dataclass(frozen=True)
class Config:
    peer: Peer
    logging: Logging
    sources: list[Source]


@pytest.fixture
def defaults(tmp_path: Path) -> Path:
    file = tmp_path / "core.yaml"
    file.write_text(DEFAULTS)
    return file


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    return tmp_path / "overlay.yaml"


def test_defaults_alone_make_a_configuration(defaults: Path) -> None:
    config = load(Config, defaults, environ={})
    assert config.peer.listen_address == "0.0.0.0:7051"
    assert config.peer.file_system_path == Path("/var/lib/service")
    assert config.peer.tls == Tls(True, [])
    assert config.peer.events == Events(100, Duration(0.01), Size(104857600), 0.5)
    assert config.peer.proxy is None
    assert config.peer.note is None
    assert config.logging == Logging("json", {})


def test_environment_overrides_file_overrides_defaults(defaults: Path, overlay: Path) -> None:
    overlay.write_text(
        "PEER: {listenaddress: '0.0.0.0:1', events: {Buffersize: 7, timeout: 1s}}\n"
        "sources: [{address: a, weight: 1}, {address: b, weight: 2}]\n"
        "logging: {labels: {one: 1}}\n"
    )
    environ = {
        "CORE_PEER_EVENTS_TIMEOUT": "2s",
        "CORE_PEER_LISTENADDRESS": "",  # empty is unset
        "CORE_PEER_UNKNOWN": "is ignored",
        "CORE_PEER_TLS_CLIENTROOTCAS": "a.pem, b.pem",
    }
    config = load(Config, defaults, overlay, environ)
    assert config.peer.listen_address == "0.0.0.0:1"
    assert (config.peer.events.buffersize, config.peer.events.timeout) == (7, 2.0)
    assert config.peer.events.max_bytes == 104857600
    assert config.peer.tls.client_root_cas == ["a.pem", "b.pem"]
    assert config.sources == [Source("a", 1), Source("b", 2)]
    assert config.logging.labels == {"one": 1}


def test_section_left_empty_keeps_its_defaults(defaults: Path, overlay: Path) -> None:
    overlay.write_text("peer:\n  events:\n")
    assert load(Config, defaults, overlay, {}).peer.events.buffersize == 100


def test_empty_file_changes_nothing(defaults: Path, overlay: Path) -> None:
    overlay.write_text("")
    assert load(Config, defaults, overlay, {}) == load(Config, defaults, None, {})


def test_optional_section_may_come_from_file_or_environment(defaults: Path, overlay: Path) -> None:
    overlay.write_text("peer: {proxy: {address: here}, note: hello}")
    config = load(Config, defaults, overlay, {})
    assert config.peer.proxy == Proxy("here")
    assert config.peer.note == "hello"
    config = load(Config, defaults, None, {"CORE_PEER_PROXY_ADDRESS": "there"})
    assert config.peer.proxy == Proxy("there")
    overlay.write_text("peer: {proxy: null}")
    assert load(Config, defaults, overlay, {}).peer.proxy is None


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("CORE_PEER_EVENTS_TIMEOUT", "30s", 30.0),
        ("CORE_PEER_EVENTS_TIMEOUT", "10ms", 0.01),
        ("CORE_PEER_EVENTS_TIMEOUT", "1m30s", 90.0),
        ("CORE_PEER_EVENTS_TIMEOUT", "-1.5h", -5400.0),
        ("CORE_PEER_EVENTS_TIMEOUT", "+2us", 2e-6),
        ("CORE_PEER_EVENTS_TIMEOUT", "100µs", 1e-4),
        ("CORE_PEER_EVENTS_TIMEOUT", "0", 0.0),
        ("CORE_PEER_EVENTS_MAXBYTES", "1024", 1024),
        ("CORE_PEER_EVENTS_MAXBYTES", "10 MB", 10 << 20),
        ("CORE_PEER_EVENTS_MAXBYTES", "64kb", 64 << 10),
        ("CORE_PEER_EVENTS_MAXBYTES", "1GiB", 1 << 30),
        ("CORE_PEER_EVENTS_MAXBYTES", "5B", 5),
        ("CORE_PEER_EVENTS_BUFFERSIZE", "-3", -3),
        ("CORE_PEER_EVENTS_RATIO", "1e-3", 0.001),
        ("CORE_PEER_TLS_ENABLED", "false", False),
        ("CORE_PEER_TLS_ENABLED", "T", True),
        ("CORE_PEER_TLS_ENABLED", "0", False),
        ("CORE_PEER_NOTE", "null", "null"),
        ("CORE_PEER_LOCALMSPID", "42", "42"),
        ("CORE_PEER_FILESYSTEMPATH", "/data", Path("/data")),
        ("CORE_LOGGING_FORMAT", "console", "console"),
    ],
)
def test_variable_is_read_as_its_keys_type(
    defaults: Path, name: str, text: str, expected: object
) -> None:
    config = load(Config, defaults, None, {name: text})
    assert expected in _leaves(config)


def _leaves(node: Any) -> list[Any]:
    if not hasattr(node, "__dataclass_fields__"):
        return [node]
    return [leaf for field in node.__dataclass_fields__ for leaf in _leaves(getattr(node, field))]


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        (
            "CORE_PEER_EVENTS_TIMEOUT",
            "30",
            "CORE_PEER_EVENTS_TIMEOUT: peer.events.timeout is '30', but must be a duration with "
            'a unit, such as "30s", "10ms" or "1m30s".',
        ),
        ("CORE_PEER_EVENTS_TIMEOUT", "1s2", "must be a duration"),
        ("CORE_PEER_EVENTS_TIMEOUT", "soon", "must be a duration"),
        ("CORE_PEER_EVENTS_TIMEOUT", "-", "must be a duration"),
        ("CORE_PEER_EVENTS_MAXBYTES", "-1", "must be a size in bytes"),
        ("CORE_PEER_EVENTS_MAXBYTES", "1TB", "must be a size in bytes"),
        ("CORE_PEER_EVENTS_BUFFERSIZE", "1_000", "must be a whole number."),
        ("CORE_PEER_EVENTS_BUFFERSIZE", "1.5", "must be a whole number."),
        ("CORE_PEER_EVENTS_RATIO", "nan", "must be a number."),
        ("CORE_PEER_TLS_ENABLED", "yes", "must be true or false."),
        ("CORE_LOGGING_FORMAT", "xml", "is 'xml', but must be one of json, console."),
        ("CORE_LOGGING_LABELS", "a=1", "CORE_LOGGING_LABELS: logging.labels is a mapping; set it"),
        ("CORE_SOURCES", "a", "CORE_SOURCES: sources is a list of sections; set it in the YAML"),
    ],
)
def test_wrong_variable_is_named(defaults: Path, name: str, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(Config, defaults, None, {name: text})
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(f"{name}: ")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "peer: {events: {buffersise: 1}}",
            "unknown key peer.events.buffersise; perhaps buffersize was meant.",
        ),
        (
            "peer: {tls: {colour: red}}",
            "unknown key peer.tls.colour; known here: clientRootCAs, enabled.",
        ),
        ("colour: red", "unknown key colour; known here: logging, peer, sources."),
        ("peer: 5", "peer must be a section of keys, not 5."),
        ("- peer", "the document must be a section of keys, not ['peer']."),
        ("peer: {events: {buffersize: many}}", "peer.events.buffersize is 'many', but must be a"),
        ("peer: {events: {buffersize: true}}", "is True, but must be a whole number."),
        ("peer: {events: {buffersize: null}}", "is None, but must be a whole number."),
        ("peer: {events: {buffersize: 13}}", "peer.events: buffersize 13 brings bad luck;"),
        ("peer: {events: {timeout: 30}}", "peer.events.timeout is 30, but must be a duration"),
        ("peer: {events: {maxBytes: -1}}", "peer.events.maxBytes is -1, but must be a size"),
        ("peer: {events: {ratio: .inf}}", "peer.events.ratio is inf, but must be a number."),
        ("peer: {localMspId: 5}", "peer.localMspId is 5, but must be text (put it in quotes)."),
        ("peer: {fileSystemPath: 5}", "peer.fileSystemPath is 5, but must be a path."),
        ("peer: {tls: {clientRootCAs: a.pem}}", "is 'a.pem', but must be a list."),
        ("peer: {tls: {clientRootCAs: [a, 5]}}", "peer.tls.clientRootCAs[1] is 5, but must be"),
        ("logging: {labels: {one: x}}", "logging.labels.one is 'x', but must be a whole number."),
        ("logging: {labels: 7}", "logging.labels is 7, but must be a mapping of names to values."),
        ("sources: [{address: a}]", "the key sources[0].weight is missing; add it."),
        ("sources: [{address: a, weight: x}]", "sources[0].weight is 'x', but must be a whole"),
        ("sources: [5]", "sources[0] must be a section of keys, not 5."),
        ("peer: {note: a, Note: b}", "line 1: the key Note is given twice; keep one."),
        ("peer: {", "is not valid YAML: "),
        ("peer: !!python/object:os.system {}", "is not valid YAML: "),
        ("{[a]: b}", "is not valid YAML: "),
    ],
)
def test_wrong_file_is_named(defaults: Path, overlay: Path, text: str, sentence: str) -> None:
    overlay.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(Config, defaults, overlay, {})
    assert sentence in str(refused.value)
    assert str(overlay) in str(refused.value)
    assert "\n" not in str(refused.value)


@dataclass(frozen=True)
class Shop:
    stock: Events
    names: list[str]
    owner: str | None

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("names is empty; give it one")


@dataclass(frozen=True)
class Town:
    shop: Shop
    shops: Annotated[list[Shop], Like("shop")]


TOWN = """
shop:
  stock: {buffersize: 1, timeout: 1s, maxBytes: 1KB, ratio: 0.5}
  names: [first]
  owner: ada
shops: []
"""


@pytest.fixture
def town(tmp_path: Path) -> Path:
    file = tmp_path / "core.yaml"
    file.write_text(TOWN)
    return file


def test_section_of_a_list_is_like_another_one_where_it_says_nothing(
    town: Path, overlay: Path
) -> None:
    overlay.write_text(
        "shop: {stock: {timeout: 2s}}\n"
        "shops: [{names: [second], owner: null}, {stock: {ratio: 0.1}}, {stock: null}]\n"
    )
    config = load(Town, town, overlay, {"CORE_SHOP_STOCK_BUFFERSIZE": "7"})
    stock = Events(7, Duration(2), Size(1024), 0.5)
    assert config.shop == Shop(stock, ["first"], "ada")
    assert config.shops == [
        Shop(stock, ["second"], None),
        Shop(Events(7, Duration(2), Size(1024), 0.1), ["first"], "ada"),
        config.shop,
    ]
    assert load(Town, town, None, {}).shops == []


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("shops: [{names: [a]}, {nmaes: [b]}]", "unknown key shops[1].nmaes; perhaps names was"),
        ("shops: [{stock: {buffersize: x}}]", "shops[0].stock.buffersize is 'x', but must be a"),
        ("shops: [{names: []}]", "shops[0]: names is empty; give it one"),
        ("shops: {names: [a]}", "shops is {'names': ['a']}, but must be a list."),
    ],
)
def test_wrong_section_of_a_list_is_named(
    town: Path, overlay: Path, text: str, sentence: str
) -> None:
    overlay.write_text(text)
    with pytest.raises(ConfigError) as refused:
        load(Town, town, overlay, {})
    assert sentence in str(refused.value)
    assert str(overlay) in str(refused.value)


def test_list_of_sections_has_no_variable(town: Path) -> None:
    with pytest.raises(ConfigError, match="CORE_SHOPS: shops is a list of sections; set it in the"):
        load(Town, town, None, {"CORE_SHOPS": "a"})


def test_file_that_cannot_be_read_is_named(defaults: Path, overlay: Path) -> None:
    with pytest.raises(ConfigError, match=f"{overlay} cannot be read"):
        load(Config, defaults, overlay, {})
    overlay.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ConfigError, match=f"{overlay} cannot be read"):
        load(Config, defaults, overlay, {})


@pytest.mark.parametrize("missing", ["localMspId", "events"])
def test_defaults_must_hold_every_key(defaults: Path, missing: str) -> None:
    lines = DEFAULTS.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"  {missing}:"))
    end = start + 1
    while lines[end].startswith("    "):
        end += 1
    defaults.write_text("\n".join(lines[:start] + lines[end:]))
    with pytest.raises(ConfigError, match=f"peer.{missing} is missing; add it"):
        load(Config, defaults, None, {})


def test_defaults_may_hold_no_unknown_key(defaults: Path) -> None:
    defaults.write_text(DEFAULTS + "colour: red\n")
    with pytest.raises(ConfigError, match="unknown key colour"):
        load(Config, defaults, None, {})


@dataclass(frozen=True)
class Bounded:
    count: int
    pause: Duration
    size: Size
    rate: float
    retries: Annotated[int, Range(2, 3, or_zero=True)]
    address: Annotated[str, HostPort()]
    peers: list[Annotated[str, HostPort(listening=True)]]


BOUNDED = """
count: 1
pause: 10ms
size: 1KB
rate: 0.5
retries: 0
address: localhost:1
peers: [localhost:0]
"""


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        *(("count", value, "from 1 to 2147483647") for value in ("0", "-1", "2147483648")),
        *(("pause", value, "from 10ms to 576h") for value in ("0", "-1s", "9ms", "577h")),
        *(("size", value, "from 1KB to 2147483647") for value in ("0", "1023", "2GB")),
        *(("rate", value, "from 0.001 to 2147483647") for value in ("0", "-0.5", "1e10")),
        *(("retries", value, "0, or from 2 to 3") for value in ("-1", "1", "4")),
        *(
            ("address", value, "host:port, such as localhost:7051")
            for value in ("localhost", ":7051", "localhost:0", "localhost:65536", "localhost:x")
        ),
    ],
)
def test_value_out_of_bounds_is_refused_with_its_key(
    tmp_path: Path, key: str, value: str, expected: str
) -> None:
    file = tmp_path / "core.yaml"
    file.write_text(BOUNDED)
    name = f"CORE_{key.upper()}"
    with pytest.raises(ConfigError) as refused:
        load(Bounded, file, None, {name: value})
    assert str(refused.value) == f"{name}: {key} is {value!r}, but must be {expected}."


def test_bounds_hold_for_the_elements_of_a_list(tmp_path: Path) -> None:
    file = tmp_path / "core.yaml"
    file.write_text(BOUNDED)
    assert load(Bounded, file, None, {"CORE_PEERS": ":0,b:1"}).peers == [":0", "b:1"]
    with pytest.raises(ConfigError, match=r"peers\[1\] is 'b', but must be host:port"):
        load(Bounded, file, None, {"CORE_PEERS": "a:0,b"})


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("day: 2024-13-45\n", "is not valid YAML: month must be in"),
        ("[" * 5000, "nested too deeply"),
    ],
)
def test_yaml_that_stops_its_own_reader_is_refused_with_a_sentence(
    tmp_path: Path, text: str, sentence: str
) -> None:
    file = tmp_path / "core.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        loader._read(file, str(file))


def test_every_setting_has_a_variable() -> None:
    assert list(variables(Peer)) == [
        "CORE_LISTENADDRESS",
        "CORE_LOCALMSPID",
        "CORE_FILESYSTEMPATH",
        "CORE_TLS_ENABLED",
        "CORE_TLS_CLIENTROOTCAS",
        "CORE_EVENTS_BUFFERSIZE",
        "CORE_EVENTS_TIMEOUT",
        "CORE_EVENTS_MAXBYTES",
        "CORE_EVENTS_RATIO",
        "CORE_PROXY_ADDRESS",
        "CORE_NOTE",
    ]


@pytest.mark.parametrize(
    ("variable", "meant"),
    [
        ("CORE_PEER_LISTENADRESS", "CORE_PEER_LISTENADDRESS"),
        ("CORE_PEER_LISTEN_ADDRESS", "CORE_PEER_LISTENADDRESS"),
        ("CORE_PEER_LsitenAddress", "CORE_PEER_LISTENADDRESS"),
        ("CORE_PEER_TLS_ENABLE", "CORE_PEER_TLS_ENABLED"),
        ("CORE_PEERTLSENABLED", "CORE_PEER_TLS_ENABLED"),
        ("CORE_PEER_EVENT_BUFFERSIZE", "CORE_PEER_EVENTS_BUFFERSIZE"),
    ],
)
def test_misspelt_variable_is_found_with_the_one_that_was_meant(variable: str, meant: str) -> None:
    environ = {variable: "1", "CORE_PEER_NOTE": "set"}
    assert misspelt(environ, variables(Config)) == {variable: meant}


@pytest.mark.parametrize(
    "variable",
    [
        "CORE_PEER_TLS_ENABLED",
        "CORE_PEER_TLS_CERT_FILE",
        "CORE_PEER_ADDRESS",
        "CORE_PEER_GOSSIP_BOOTSTRAP",
        "CORE_LEDGER_STATE_STATEDATABASE",
        "CORE_PEER_SERVICE_HOST",
        "CORE_PEER_PORT_7051_TCP_ADDR",
        "PEER_LISTENADRESS",
    ],
)
def test_variable_of_somebody_else_is_not_misspelt(variable: str) -> None:
    assert misspelt({variable: "1"}, variables(Config)) == {}


def test_misspelt_variable_without_a_value_counts_as_unset() -> None:
    assert misspelt({"CORE_PEER_LISTENADRESS": ""}, variables(Config)) == {}
