"""What earlier runs of the same commit on the same GPU found, so that no case is run twice."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path

from benchmarks.gpu.rows import EARLIER, SHARED, Row, Sections, has_figures, lay, replace


def take(
    paths: Sequence[Path], head: Row, folder: Path, wanted: Collection[str]
) -> tuple[Sections, list[Row]]:
    """Documents that a report carries on, and the heads of the files they come from.

    Of the `wanted` sections rows with figures are laid where their workers look for them, in
    `folder`; those without, those that were wrong and peers that were not there are done again. A
    section that has none of these is laid there as finished. A file of another GPU, commit or kind
    of run is left out, and why is printed.
    """
    carried: Sections = {}
    heads = []
    for path in paths:
        found = json.loads(path.read_text())
        why = _foreign(found, head)
        if why:
            print(f"{path}: nothing is taken from it: {why}", flush=True)
            continue
        heads.append({key: x for key, x in found.items() if key not in ("sections", SHARED)})
        for name, row in found[SHARED].items():
            replace(_made(folder / EARLIER / SHARED) / f"{name}.json", row)
        for name, document in found["sections"].items():
            rows = [{"earlier": path.name, **row} for row in document["rows"]]
            fine = [row for row in rows if _settled(row)]
            if name in wanted and fine == rows and document.get("ended") == "finished":
                lay(folder, document | {"rows": rows})
            kept = fine if name in wanted else rows
            known = {row["case"] for row in kept}
            before = [r for r in carried.get(name, {"rows": []})["rows"] if r["case"] not in known]
            carried[name] = document | {"rows": before + kept}
    for name in carried.keys() & set(wanted):
        replace(_made(folder / EARLIER) / f"{name}.json", carried[name])
    return carried, heads


def _settled(row: Row) -> bool:
    missing = any(key.endswith("_unavailable") for key in row)
    return has_figures(row) and row.get("ok", True) and not missing


def _foreign(found: Row, head: Row) -> str | None:
    """Why rows of one run say nothing about the other."""
    theirs, ours = found["machine"], head["machine"]
    if found["tiny"] != head["tiny"]:
        return "one of the two runs is tiny"
    if theirs["gpu"] != ours["gpu"]:
        return f"it is of {theirs['gpu']}, this is {ours['gpu']}"
    if not theirs["commit"] or theirs["commit"] != ours["commit"]:
        return f"it is of commit {theirs['commit']}, this is {ours['commit']} (see --commit)"
    if found["tma"]["used"] and not head["tma"]["used"]:
        return "it used tensor descriptors"
    return None


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
