"""What is made of pip-audit's report: only a report without faults passes."""

import json

from tests.audit import UNKNOWN, verdict

CLEAN = {"name": "a", "version": "1", "vulns": []}
FAULTY = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1", "3"]}]}
OWN = {"name": "hplb", "skip_reason": "distribution marked as editable"}


def _told(*packages: object) -> str:
    return json.dumps({"dependencies": packages, "fixes": []})


def test_without_a_known_fault_it_passes() -> None:
    status, words = verdict(_told(CLEAN, OWN), "")
    assert status == 0
    assert words == "1 packages have no known vulnerability; 1 are not on PyPI"


def test_each_fault_is_told_with_its_cure() -> None:
    assert verdict(_told(CLEAN, FAULTY), "") == (1, "b 2: PYSEC-1, mended in 2.1, 3")


def test_what_was_not_asked_has_not_passed() -> None:
    for told in ("", "no JSON", "[]", "null", "{}"):
        status, words = verdict(told, "WARNING: slow\nERROR: api.osv.dev cannot be reached\n")
        assert status == UNKNOWN
        assert words == "dependencies were not audited: ERROR: api.osv.dev cannot be reached"
    assert verdict("", "")[0] == UNKNOWN
