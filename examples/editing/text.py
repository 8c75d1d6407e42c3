"""What the editors do to a text. Pure; what one returns, another can check."""

import re
import textwrap
from pathlib import Path
from typing import Final

PAGE: Final = Path(__file__).parent / "page.txt"
"""The beginning of Charles Darwin's introduction to On the Origin of Species (1859), as a bad scan would have it."""

_DOUBLED = re.compile(r"\b(\w+) \1\b")
_BROKEN = re.compile(r"[a-z]-$")
_SENTENCE_END = re.compile(r"(?<=[a-z]{2}[.]) (?=[A-Z])")
_SEAM = re.compile(r"(?:; (?:and )?|: )(?=\w)")


def join_lines(scan: str) -> list[str]:
    """Paragraphs, each one line, with words that were broken at a line's end made whole."""
    found = []
    for block in scan.strip().split("\n\n"):
        text = ""
        for line in block.splitlines():
            text = text[:-1] + line if _BROKEN.search(text) and not text.endswith("--") else f"{text} {line}"
        found.append(" ".join(text.split()))
    return found


def doubled(paragraphs: list[str]) -> list[str]:
    return [match.group(1) for text in paragraphs for match in _DOUBLED.finditer(text)]


def without_doubled(paragraphs: list[str]) -> list[str]:
    return [_DOUBLED.sub(r"\1", text) for text in paragraphs]


def sentences(paragraph: str) -> list[str]:
    return _SENTENCE_END.split(paragraph)


def words(text: str) -> list[str]:
    """In lower case, without what is between them."""
    return re.findall(r"[a-z0-9']+", text.lower())


def longest_sentence(paragraphs: list[str]) -> int:
    return max(len(words(sentence)) for text in paragraphs for sentence in sentences(text))


def split_long(paragraphs: list[str], words_max: int) -> list[str]:
    """Sentences above so many words become several, where a semicolon or a colon lets them."""
    return [" ".join(_split(sentence, words_max) for sentence in sentences(text)) for text in paragraphs]


def _split(sentence: str, words_max: int) -> str:
    if len(words(sentence)) <= words_max:
        return sentence
    parts = [part.strip() for part in _SEAM.split(sentence)]
    return " ".join(part[0].upper() + part[1:] + ("" if part.endswith(".") else ".") for part in parts)


def shorten(paragraphs: list[str], words_fewer: int) -> list[str]:
    """Without the shortest sentences that are not the first of their paragraph, until so many words are saved."""
    kept = [sentences(text) for text in paragraphs]
    while words_fewer > 0:
        dispensable = [(len(words(s)), p, n) for p, found in enumerate(kept) for n, s in enumerate(found) if n]
        if not dispensable:
            break
        size, p, n = min(dispensable)
        del kept[p][n]
        words_fewer -= size
    return [" ".join(found) for found in kept]


def set_page(paragraphs: list[str], width: int, *, hyphens: bool) -> list[str]:
    """Lines of a page, with an empty one between paragraphs."""
    lines: list[str] = []
    for text in paragraphs:
        lines += [*(_wrap_hyphenated(text, width) if hyphens else textwrap.wrap(text, width)), ""]
    return lines[:-1]


def _wrap_hyphenated(text: str, width: int) -> list[str]:
    """As `textwrap.wrap`, but long words are broken to fill the lines."""
    lines, line = [], ""
    for word in text.split():
        room = width - len(line) - 2
        if len(line) + 1 + len(word) <= width:
            line = f"{line} {word}".strip()
        elif re.fullmatch("[a-z]{7,}", word) and room >= 3:
            cut = min(room, len(word) - 3)
            lines.append(f"{line} {word[:cut]}-")
            line = word[cut:]
        else:
            lines.append(line)
            line = word
    return [*lines, line]
