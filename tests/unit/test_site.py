"""The documents build as a site: no dead link, anchor or name of the Python reference."""

from pathlib import Path

from mkdocs.commands.build import build
from mkdocs.config import load_config

from benchmarks.blocks import ROOT


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    build(load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path), strict=True))
    page = (tmp_path / "index.html").read_text()
    assert "https://fonts." not in page  # readers fetch nothing from elsewhere
    assert 'src="https:' not in page
