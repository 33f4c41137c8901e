"""What a line of pip's or ninja's output says of the progress, and which lines say why a command failed."""

from __future__ import annotations

import re

WORTH_SHOWING_BYTES = 20_000_000
"""Downloads below this are over before anyone has read their progress."""


def is_progress_bar(line: str) -> bool:
    """Whether it is a line of pip's raw progress bar; there are thousands of them."""
    return line.startswith("Progress ")


def compile_step(line: str) -> tuple[int, int] | None:
    """(done, total) from one of ninja's lines, `[21/41] Building ...`."""
    match = re.match(r"\s*\[(\d+)/(\d+)\] ", line)
    return (int(match[1]), int(match[2])) if match else None


def what_happens(line: str, before: str) -> tuple[str, bool]:
    """(what to show now, whether it deserves a line even in a sparse log); `before` is what was shown."""
    if step := compile_step(line):
        done, total = step
        return f"compiling {done} of {total}", done * 8 // total > (done - 1) * 8 // total
    if is_progress_bar(line) and (match := re.match(r"Progress (\d+) of (\d+)", line)):
        done, total = int(match[1]), int(match[2])
        if total < WORTH_SHOWING_BYTES:
            return before, False
        return f"{before.partition(':')[0]}: {done / 1e6:.0f} of {total / 1e6:.0f} MB", False
    if line.startswith("Installing collected packages"):
        return "unpacking", False
    if match := re.match(r"\s*(Downloading|Collecting) (\S+)", line):
        return f"{match[1].lower()} {match[2].rpartition('/')[2]}", False
    return before, False


def worst_lines(output: str, count: int = 3) -> list[str]:
    """The lines of a failed command's output most likely to say why."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if re.search(r"\berror\b", line, re.IGNORECASE)]
    return (errors or lines)[-count:]
