"""What the fitting scripts write with --out: errors as rows, with the command and the day.

Records themselves are not kept here: each script reads them from the folder that it is given.
"""

from __future__ import annotations

import datetime
import json
import sys
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]


def write(path: Path | None, rows: Rows) -> None:
    """Write rows as JSON, if there is a path.

    Args:
        path: of the file; None writes nothing.
        rows: one a fit, with what was left out and how far off the estimates then are.
    """
    if path is None:
        return
    options = " ".join(x for x in sys.argv[1:] if "/" not in x)
    found = {"script": Path(sys.argv[0]).name, "options": options, "date": datetime.date.today().isoformat()}
    path.write_text(json.dumps(found | {"rows": rows}, indent=1) + "\n")
