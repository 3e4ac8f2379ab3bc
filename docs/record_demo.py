"""Records `recovery demo` as the picture of a terminal: ``python docs/record_demo.py``."""

from __future__ import annotations

import io
import os
import pty
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

COLUMNS = 120
PICTURE = Path(__file__).parent / "images" / "demo.svg"
WEB_FONT = re.compile(r"@font-face\s*\{[^}]*\}\s*")


def record() -> str:
    """What the demo prints, with its colours; raises ``SystemExit`` where it fails."""
    os.environ["COLUMNS"] = str(COLUMNS)
    said = io.BytesIO()

    def keep(descriptor: int) -> bytes:
        read = os.read(descriptor, 4096)
        said.write(read)
        return read

    command = [sys.executable, "-c", "from recovery.cli import main; main(['demo'])"]
    status = os.waitstatus_to_exitcode(pty.spawn(command, keep))
    if status:
        sys.exit(status)
    return said.getvalue().decode().replace("\r\n", "\n")


def main() -> None:
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    for line in Text.from_ansi(record().strip("\n")).split("\n"):
        line.truncate(COLUMNS, overflow="ellipsis")
        console.print(line, no_wrap=True)
    drawn = console.export_svg(title="make demo")
    # Nothing is fetched from elsewhere to look at it.
    PICTURE.write_text(WEB_FONT.sub("", drawn))


main()
