"""Turns results files of `benchmarks.gpu` into tables, rates and verdicts; or checks that they are.

    python -m benchmarks.gpu_results [RESULTS.json ...] [--check] [--into FOLDER]

Files named are checked and copied to `benchmarks/results`. From all that lie there it writes the
marked regions of README.md and docs/gpu.md, and `profiles/catalog/measured/TYPE.json`: the rates
that plans for the GPU type are made with from then on. Nothing is kept by hand, so that it can be
run again whenever a feature of the cost model, an aim or the form of a table changes. --check
writes nothing and ends with 1 where something is not what it would write. --into: another checkout;
only there made-up files, which must say so under "label", are taken.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter

from benchmarks.gpu.aims import AIMS
from benchmarks.gpu_results.fitting import Fit, errors, fits
from benchmarks.gpu_results.reading import FILES, FOLDER, Results, ResultsError, newest, read
from benchmarks.gpu_results.tables import Published, full, short, verdict
from benchmarks.markdown import replaced
from profiles.cost.rates import Rates
from profiles.errors import HplbError
from profiles.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]
MEASURED = Path("profiles/catalog/measured")
README, DOCUMENT = Path("README.md"), Path("docs/gpu.md")
COMMAND = "benchmarks.gpu_results"
SAME = 1e-3
"""Rates refitted elsewhere differ in their last digits: numerical libraries sum in any order."""
RATES = TypeAdapter(list[Rates])


@dataclass(frozen=True)
class Checkout:
    """The files of a checkout that this command reads and writes."""

    root: Path
    made_up: bool = False

    def results(self) -> dict[str, Results]:
        found = sorted((self.root / FOLDER).glob(FILES))
        return newest(read(path, self.made_up) for path in found)

    def stored(self, device: str) -> list[Rates]:
        path = self.root / MEASURED / f"{device}.json"
        return RATES.validate_json(path.read_text()) if path.exists() else []

    def types(self) -> list[str]:
        """GPU types whose measured rates are stored."""
        return sorted(path.stem for path in (self.root / MEASURED).glob("*.json"))

    def documents(self) -> Iterator[tuple[Path, str, str]]:
        """README and docs/gpu.md: where, what they say, and what they must say."""
        published = {
            device: Published(results, stored, errors(results, stored))
            for device, results in self.results().items()
            for stored in [self.stored(device)]
        }
        for name, text in ((README, short(published)), (DOCUMENT, full(published))):
            said = (self.root / name).read_text()
            yield self.root / name, said, replaced(said, text, COMMAND, str(name))


def keep(path: Path, checkout: Checkout) -> None:
    """Copy a results file to the others; raises ResultsError for one that may not be used."""
    file = read(path, checkout.made_up)
    kept = checkout.root / FOLDER / file.stored_as
    if kept.exists() and json.loads(kept.read_text()) != file.found:
        raise ResultsError(f"{path}: {kept} is of the same second and commit, and another file")
    write_atomically(kept, path.read_text())


def rewrite(checkout: Checkout) -> None:
    """Rates and documents anew from the results files."""
    results = checkout.results()
    for device in checkout.types():
        (checkout.root / MEASURED / f"{device}.json").unlink()
    for device, found in results.items():
        fitted = fits(found)
        tell(found, fitted)
        rates = [fit.refit.rates.rounded for fit in fitted]
        if rates:
            path = checkout.root / MEASURED / f"{device}.json"
            path.parent.mkdir(exist_ok=True)
            write_atomically(path, RATES.dump_json(rates, indent=2).decode() + "\n")
    for path, _, wanted in checkout.documents():
        write_atomically(path, wanted)


def tell(results: Results, fitted: list[Fit]) -> None:
    """Print verdicts and what became of the calls."""
    print(f"{results.device}: {', '.join(results.files)}")
    for aim in AIMS:
        print(f"  {' | '.join(filter(None, (aim.says, *verdict(aim, results))))}")
    for fit in fitted:
        rates, found = fit.refit.rates, fit.refit
        print(
            f"  {rates.phase}: {found.accepted} calls fitted, {found.rejected_outliers} outliers, "
            f"error {found.mean_error_ratio or 0:.1%}, on a bound: {', '.join(found.pegged) or '-'}"
        )
        for call in fit.impossible:
            print(f"    faster than the chip, not used: {call.place}, {call.seconds:.3g} s")
    for error in errors(results, [fit.refit.rates for fit in fitted]):
        state = "" if error.fitted else ", not fitted"
        print(f"  {error.kind}: {error.calls} calls, error {error.median:.1%}{state}")


def differences(checkout: Checkout) -> list[str]:
    """What is not as `rewrite` would leave it."""
    results = checkout.results()
    found = [
        f"{MEASURED / device}.json: rates of no results file"
        for device in checkout.types()
        if device not in results
    ]
    for device, of_type in results.items():
        wanted = [fit.refit.rates.rounded for fit in fits(of_type)]
        if not _same(checkout.stored(device), wanted):
            found.append(f"{MEASURED / device}.json: not what {', '.join(of_type.files)} give")
    for path, said, told in checkout.documents():
        if said != told:
            found.append(f"{path}: its table is not what results files and rates say")
    return found


def _same(stored: list[Rates], wanted: list[Rates]) -> bool:
    """Whether rates are equal but for their last digits."""
    return len(stored) == len(wanted) and all(
        (a.source, a.phase, a.samples) == (b.source, b.phase, b.samples)
        and np.allclose(a.vector, b.vector, rtol=SAME, atol=SAME * b.vector[b.vector > 0].min())
        for a, b in zip(stored, wanted, strict=True)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, nargs="*", metavar="RESULTS.json")
    parser.add_argument("--check", action="store_true", help="write nothing; 1 where it would")
    parser.add_argument("--into", type=Path, metavar="FOLDER", help="another checkout")
    arguments = parser.parse_args()
    if arguments.check and arguments.results:
        parser.error("--check takes no files: it checks those in benchmarks/results")
    checkout = Checkout(arguments.into or ROOT, made_up=arguments.into is not None)
    try:
        if arguments.check:
            found = differences(checkout)
            print("\n".join(found) or "tables and rates are what the results files say")
            sys.exit(1 if found else 0)
        for path in arguments.results:
            keep(path, checkout)
        rewrite(checkout)
    except HplbError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
