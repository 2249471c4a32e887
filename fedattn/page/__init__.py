"""Pages for people: files of a page beside those that all pages share, without a build step."""

from pathlib import Path

from fastapi import FastAPI
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

CONTENT_POLICY = (
    "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'"
)
"""For whatever a page is made of: nothing from elsewhere, no script or style within a document."""
PAGE_FILES = "/page/"
"""What the paths of all files of a page begin with, but for the document itself at `/`."""

_SHARED = Path(__file__).parent / "assets"


def is_page(path: str) -> bool:
    """Whether a path of a request is the page's: of what everybody may load, and holds no data."""
    return path == "/" or path.startswith(PAGE_FILES)


def add_page(app: FastAPI, folder: Path) -> None:
    """Serve a page at `/`.

    Args:
        app: gets the routes; none of them is in its OpenAPI document.
        folder: of the page, with `index.html`.
    """

    async def get_page() -> FileResponse:
        return FileResponse(folder / "index.html")

    app.add_api_route("/", get_page, methods=["GET"], include_in_schema=False)
    app.mount(f"{PAGE_FILES}shared", StaticFiles(directory=_SHARED))
    app.mount(PAGE_FILES, StaticFiles(directory=folder))
