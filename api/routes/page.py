"""The page for people at `/`, and `/docs`: files of this package, and nothing from elsewhere."""

from pathlib import Path

from fastapi import APIRouter, Response
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from solver.report.svg import STYLE_HASH

FOLDER = Path(__file__).resolve().parents[1] / "page"
OPEN_PATHS = frozenset({"/", "/docs"})
FILES = "/page"
HEADERS = {
    # A picture's own sheet is the one thing inline, named by its hash.
    "Content-Security-Policy": f"default-src 'self'; style-src 'self' {STYLE_HASH}; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Asked for again each time, answered with 304: a new planner has its new page at once.
    "Cache-Control": "no-cache",
}
"""Of everything the page consists of."""

router = APIRouter(include_in_schema=False)


@router.head("/")
@router.get("/")
async def page() -> FileResponse:
    return FileResponse(FOLDER / "index.html", headers=HEADERS)


@router.head("/docs")
@router.get("/docs")
async def docs() -> FileResponse:
    return FileResponse(FOLDER / "docs.html", headers=HEADERS)


class PageFiles(StaticFiles):
    """The page's scripts and sheets, with `HEADERS`."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        return response
