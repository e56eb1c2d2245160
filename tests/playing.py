"""Plays chaos as `make chaos` does, in small."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

CHAOS = Path(__file__).parent / "chaos"
WITHIN_S = 240.0


async def chaos(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    """Plays it, asserts that every promise was kept, and gives all its figures."""
    told = tmp_path / "told.json"
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        CHAOS / "run.py",
        *arguments,
        "--json",
        told,
        stdout=-1,
        stderr=-2,
        env=os.environ | {"PYTHONPATH": str(CHAOS.parent)},
    )
    try:
        async with asyncio.timeout(WITHIN_S):
            said, _ = await process.communicate()
    except TimeoutError:
        process.kill()  # what it started ends with it
        raise AssertionError(f"not within {WITHIN_S:g} s:\n{(await process.communicate())[0].decode()}") from None
    assert process.returncode == 0, said.decode()
    found: dict[str, Any] = json.loads(told.read_text())
    assert [verdict for verdict in found["verdicts"] if verdict["kept"]] != []
    assert [verdict for verdict in found["verdicts"] if verdict["kept"] is False] == []
    return found
