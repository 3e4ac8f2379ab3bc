"""Run every bench script and print one table: ``python -m bench [NAME ...]``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
NO_SCRIPT = {"__init__", "__main__", "report", "servers"}
COLUMNS = ("name", "n", "unit", "ours", "baseline", "ratio", "limit", "ok")


def scripts(chosen: list[str]) -> list[str]:
    names = sorted(
        path.stem
        for path in FOLDER.glob("*.py")
        if path.stem not in NO_SCRIPT and not path.stem.endswith("_app")
    )
    unknown = set(chosen) - set(names)
    if unknown:
        sys.exit(f"no bench named {', '.join(sorted(unknown))}; there are: {', '.join(names)}")
    return chosen or names


def run(name: str) -> dict[str, Any]:
    print(f"== {name}", flush=True)
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}"],
        cwd=FOLDER.parent,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    print(done.stdout, flush=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"name": name, "ok": False, "unit": f"exit {done.returncode}, no figures"}
    found: dict[str, Any] = json.loads(lines[-1])
    found["ok"] = bool(found["ok"]) and done.returncode == 0
    return found


def as_text(value: Any) -> str:
    if isinstance(value, dict):
        return " ".join(f"{name} {part}" for name, part in value.items())
    return "" if value is None else str(value)


def main() -> int:
    rows = [run(name) for name in scripts(sys.argv[1:])]
    table = [COLUMNS, *(tuple(as_text(row.get(column)) for column in COLUMNS) for row in rows)]
    widths = [max(len(line[index]) for line in table) for index in range(len(COLUMNS))]
    for line in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)))
    return 0 if all(row.get("ok") for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
