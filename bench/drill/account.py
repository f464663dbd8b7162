"""What one consumer has heard, held against the story with every word."""

from __future__ import annotations

from collections.abc import Sequence

from bench.drill.story import Chapters


class Untrue(Exception):
    """A consumer missed something, heard something twice, or was treated as it should not be."""


class Account:
    """How far a consumer is in its story.

    Args:
        who: for sentences.
        chapters: what there is to hear; it grows.
        start: the first block to hear of.

    Attributes:
        block: the first block that it has not heard all of.
        heard: how many words it heard.
    """

    def __init__(self, who: str, chapters: Chapters, start: int) -> None:
        self.who = who
        self.block = start
        self.heard = 0
        self._chapters = chapters
        self._word = 0

    @property
    def unfinished(self) -> Sequence[str]:
        """What was heard of `block`."""
        return self._chapters[self.block][: self._word] if self._word else ()

    def hear(self, word: str) -> None:
        """Take the next word. Raises Untrue: something else was due."""
        chapter = self._chapters[self.block] if self.block < len(self._chapters) else ()
        due = chapter[self._word] if chapter else "nothing, as there are no more blocks"
        if word != due:
            raise Untrue(f"{self.who} in block {self.block}: {self._place(word)}; due was: {due}")
        self.heard += 1
        self._word += 1
        if self._word == len(chapter):
            self.block, self._word = self.block + 1, 0

    def _place(self, word: str) -> str:
        """Say what is wrong with a word that was not due."""
        here = (self.block, self._word)
        for number, chapter in enumerate(self._chapters):
            if word in chapter:
                what = "repeated" if (number, chapter.index(word)) < here else "told too early"
                return f"{what}: {word}, which is of block {number}"
        return f"told, and never made: {word}"
