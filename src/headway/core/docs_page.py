"""The API's own pages at ``/docs``, from files that ship with Headway: nothing is fetched from anywhere else.

``swagger_ui/`` is swagger-ui-dist 5.35.0 (Apache-2.0), unchanged but for the line that names its source map; a test
holds the files to ``swagger_ui/SHA256SUMS``.
"""

from pathlib import Path

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

FILES = Path(__file__).parent / "swagger_ui"
ASSETS = "/docs/assets"


def install(app: FastAPI) -> None:
    """Serve the pages."""

    async def page() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/openapi.json",
            title=f"{app.title} API",
            swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
            swagger_css_url=f"{ASSETS}/swagger-ui.css",
            swagger_favicon_url=f"{ASSETS}/favicon-32x32.png",
        )

    app.get("/docs", include_in_schema=False)(page)
    app.mount(ASSETS, StaticFiles(directory=FILES))
