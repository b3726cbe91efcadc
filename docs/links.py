"""Links of the pages that lead nowhere: files that are missing, headings that no page has.

    python docs/links.py

Links to pages that are made from the program are left to the build of the site.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^( *)```.*?^\1```", re.MULTILINE | re.DOTALL)
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.MULTILINE | re.DOTALL)


def pages() -> list[Path]:
    """Every page that is kept, README and the like among them."""
    made = ROOT / "docs" / "generated"
    return [*sorted(ROOT.glob("*.md")), *(p for p in sorted((ROOT / "docs").rglob("*.md")) if made not in p.parents)]


def anchors(page: Path) -> set[str]:
    """Headings as links name them."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken(page: Path) -> list[str]:
    """A sentence for every link of a page that leads nowhere."""
    text = page.read_text(encoding="utf-8")
    wrong = []
    for tree in TOCTREE.findall(text):
        names = [line for line in tree.splitlines() if line and not line.startswith(":")]
        wrong += [name for name in names if "generated/" not in name and not any(page.parent.glob(f"{name}.md"))]
    for link in LINK.findall(FENCE.sub("", text)):
        target, _, heading = link.partition("#")
        if re.match(r"[a-z]+:", target) or "generated/" in target:
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (heading and heading not in anchors(path)):
            wrong.append(link)
    return [f"{page.relative_to(ROOT)}: '{link}' leads nowhere" for link in wrong]


if __name__ == "__main__":
    found = [line for page in pages() for line in broken(page)]
    print("\n".join(found))
    sys.exit(bool(found))
