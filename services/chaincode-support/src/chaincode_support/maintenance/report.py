"""What verifying a channel has found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field


@dataclass(frozen=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        file: where.
        what: what is the case there.
        verdict: whether that is a verdict that this release would not give, in a file that may be
            as it was written.
    """

    file: str
    what: str
    verdict: bool = False


@dataclass
class Report:
    """What was found.

    Attributes:
        channel: the channel.
        blocks: in the ledger.
        ordered: blocks in the ordering log; those beyond the ledger's are committed by the service.
        last_block_hash: of the ledger's newest block's header, in hexadecimal.
        state_hash: fingerprint of the state; empty where it could not be read.
        judged: blocks of the ledger whose transactions were judged again, to the same verdicts.
        findings: what is wrong; none for a sound channel.
    """

    channel: str
    blocks: int = 0
    ordered: int = 0
    last_block_hash: str = ""
    state_hash: str = ""
    judged: int = 0
    findings: list[Finding] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def record(self) -> dict[str, object]:
        """As `--json` prints it."""
        return {**asdict(self), "sound": self.sound}
