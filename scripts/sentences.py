"""How long the sentences of pages are: words a sentence, and the share over 30. Tables and code do not count.

    uv run scripts/sentences.py README.md docs/architecture.md

A sentence ends at a full stop, an exclamation or question mark. Headings, tables, indented or fenced code and link
targets are left out; an item of a list ends a sentence, too.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

LONG = 30
"""Words over which a sentence is long."""


def prose(page: str) -> list[str]:
    """The paragraphs and list items of a Markdown page."""
    page = re.sub(r"^(```|~~~).*?^\1", "", page, flags=re.DOTALL | re.MULTILINE)
    blocks: list[str] = [""]
    item = False
    for line in page.splitlines():
        text = line.strip()
        starts_item = re.match(r"(?:[-*]|\d+\.)\s", text) is not None
        is_code = line.startswith("    ") and not item
        if not text or text.startswith(("#", "|")) or is_code:
            blocks.append("")
            item = item and not text
        elif starts_item:
            blocks.append(re.sub(r"^(?:[-*]|\d+\.)\s+", "", text))
            item = True
        else:
            blocks[-1] += f" {text}"
            item = item and line.startswith(" ")
    return [block.strip() for block in blocks if block.strip()]


def sentences(page: str) -> list[int]:
    """The number of words of each sentence of a Markdown page."""
    counts = []
    for block in prose(page):
        text = re.sub(r"`[^`]*`", "code", re.sub(r"!?\[([^]]*)\]\([^)]*\)", r"\1", block))
        text = re.sub(r"\b(e\.g|i\.e|al|No)\.", r"\1", text)
        counts += [len(part.split()) for part in re.split(r"(?<=[.!?])[\"')*]*\s+", text) if part.split()]
    return counts


def main() -> None:
    """Print a row a page."""
    parser = argparse.ArgumentParser(description="words a sentence of Markdown pages, and the share over 30 words")
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    for page in parser.parse_args().pages:
        counts = sentences(page.read_text())
        share = sum(count > LONG for count in counts) / len(counts)
        print(f"{page}: {len(counts)} sentences, mean {sum(counts) / len(counts):.1f} words, {share:.0%} over {LONG}")


if __name__ == "__main__":
    main()
