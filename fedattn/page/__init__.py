"""Pages for people: files of a page beside those that all pages share, without a build step."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import FileResponse, Response
from starlette.staticfiles import StaticFiles

PAGE_HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; object-src 'none'",
    "Cache-Control": "no-cache",  # kept, but asked for whether it has changed
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""For whatever a page is made of: nothing from elsewhere, no script or style within a document."""
_FILES = "/page/"
"""What the paths of all files of a page begin with, but for the document itself at `/`."""
_SHARED = Path(__file__).parent / "assets"


def is_page(path: str) -> bool:
    """Whether a path of a request is the page's: of what everybody may load, and holds no data."""
    return path == "/" or path.startswith(_FILES)


def add_page(app: FastAPI, folder: Path) -> None:
    """Serve a page at `/`.

    Args:
        app: gets the routes; none of them is in its OpenAPI document.
        folder: of the page, with `index.html`.
    """

    async def get_page() -> FileResponse:
        return FileResponse(folder / "index.html", headers=PAGE_HEADERS)

    app.add_api_route("/", get_page, methods=["GET"], include_in_schema=False)
    app.mount(f"{_FILES}shared", _Files(directory=_SHARED))
    app.mount(_FILES, _Files(directory=folder))


class _Files(StaticFiles):
    """A folder of files, with the headers of a page."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(PAGE_HEADERS)
        return response
