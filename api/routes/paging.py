"""How lists come in pages."""

from typing import Annotated

from fastapi import Query

MOST = 500
"""Entries of a page."""
Limit = Annotated[int, Query(ge=1, le=MOST)]
Offset = Annotated[int, Query(ge=0, le=2**31 - 1)]
