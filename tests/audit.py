"""Known vulnerabilities of the packages that are installed here: `make audit`, which CI runs.

Asks OSV (https://osv.dev) through pip-audit. Ends with 1 where there are any, and with 75 where
nothing was learnt, because OSV cannot be reached or pip-audit is not there: that is no pass.
"""

import json
import subprocess
import sys

COMMAND = ["-m", "pip_audit", "--vulnerability-service", "osv", "--progress-spinner", "off"]
WHAT = ["--local", "--skip-editable", "--format", "json"]
LONGEST_S = 300
UNKNOWN = 75
"""sysexits.h's EX_TEMPFAIL."""


def verdict(told: str, said: str) -> tuple[int, str]:
    """Exit status and a few lines, by pip-audit's report and what it said beside."""
    try:
        packages = json.loads(told)["dependencies"]
    except (ValueError, KeyError, TypeError):
        last = said.strip().splitlines()[-1:] or ["pip-audit told nothing"]
        return UNKNOWN, f"dependencies were not audited: {last[0][:300]}"
    audited = [package for package in packages if "skip_reason" not in package]
    found = [
        f"{package['name']} {package['version']}: {fault['id']}, "
        f"mended in {', '.join(fault['fix_versions']) or 'no version'}"
        for package in audited
        for fault in package["vulns"]
    ]
    if found:
        return 1, "\n".join(found)
    left_out = len(packages) - len(audited)
    return 0, f"{len(audited)} packages have no known vulnerability; {left_out} are not on PyPI"


def main() -> int:
    try:
        done = subprocess.run(
            [sys.executable, *COMMAND, *WHAT], capture_output=True, text=True, timeout=LONGEST_S
        )
    except subprocess.TimeoutExpired:
        status, words = UNKNOWN, f"dependencies were not audited: no end in {LONGEST_S} s"
    else:
        status, words = verdict(done.stdout, done.stderr)
    (sys.stderr if status else sys.stdout).write(f"{words}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
