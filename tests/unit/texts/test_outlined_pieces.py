"""Markdown, HTML and YAML: pieces under the path of their headings, tables by rows."""

import pytest

from tests.unit.texts.conftest import Cut

MARKDOWN = """\
Before.

# Pump house #

## Alarms

These are set:
- high pressure
- low pressure

| Alarm | Limit |
|:------|------:|
| High  | 5 \\| 6 bar |
| Low   | |

After the table.

Tanks
=====

```py
# no heading
x = 1
```

# Empty
# Last
"""


def test_markdown_stands_under_its_headings(cut: Cut) -> None:
    assert [piece.text for piece in cut("a.md", MARKDOWN)] == [
        "Before.",
        "Pump house > Alarms\nThese are set:\n\n- high pressure\n- low pressure",
        "Pump house > Alarms\nAlarm: High; Limit: 5 | 6 bar\nAlarm: Low",
        "Pump house > Alarms\nAfter the table.",
        "Tanks\n```py\n# no heading\nx = 1\n```",
        "Empty",
        "Last",
    ]


def test_places_in_markdown_are_lines(cut: Cut) -> None:
    places = [piece.place for piece in cut("a.md", MARKDOWN)]
    assert places[:4] == ["line 1", "lines 7-9", "lines 13-14", "line 16"]


def test_a_long_list_is_cut_between_its_items(cut: Cut) -> None:
    pieces = cut(
        "a.md", "# A\n" + "".join(f"- item {n} of many\n" for n in range(20)), max_chars=100
    )
    assert all(piece.text.startswith("A\n- item") for piece in pieces)
    assert all(len(piece.text) <= 102 for piece in pieces)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "|Alarm|Limit|\n|--|--|\n"),
        ("a.md", "|Alarm|Limit|\n|--|--|\n\n# Next"),
        ("a.html", "<table><tr><th>Alarm</th><th>Limit</th></tr></table>"),
    ],
)
def test_a_table_without_rows_keeps_its_header(cut: Cut, name: str, text: str) -> None:
    assert cut(name, text)[0].text in {"Alarm; Limit", "Alarm: Limit"}


def test_code_that_is_never_closed_is_kept(cut: Cut) -> None:
    assert cut("a.md", "~~~\nx\n\n# y\n")[0].text == "~~~\nx\n\n# y"


@pytest.mark.parametrize(
    "line", ["# a" + " " * 60_000 + "b", " " * 60_000 + "|x", "|-" * 30_000 + "x"]
)
def test_hostile_lines_of_markdown_are_survived(cut: Cut, line: str) -> None:
    assert cut("a.md", f"first\n{line}\n")


def test_the_name_of_a_heading_may_end_in_a_number_sign(cut: Cut) -> None:
    assert cut("a.md", "# C# #\ntext")[0].text == "C#\ntext"


def test_very_long_headings_are_shortened(cut: Cut) -> None:
    (piece,) = cut("a.md", f"# {'Pump ' * 1000}\n\ntext\n")
    assert piece.text.endswith("…\ntext")
    assert len(piece.text) < 100


PAGE = """
<html><head><title>Dock</title><style>p {}</style></head><body>
<h1>Pump <em>house</em></h1><script>no()</script>
<p>It has<br>two pumps.</p>
<h2>Alarms</h2>
<table><tr><th>Alarm</th><th>Limit</th></tr><tr><td><p>High</p></td><td>5 <b>bar</b></td></tr>
<tr><td>Low</td><td></td></tr></table>
<table><tr><td>Owner</td><td>Port</td></tr></table>
<ul><li>one</li><li>two</li></ul>
<h1>Empty</h1>
</body></html>
"""


def test_a_page_stands_under_its_headings(cut: Cut) -> None:
    assert [piece.text for piece in cut("a.html", PAGE)] == [
        "Dock",
        "Pump house\nIt has\n\ntwo pumps.",
        "Pump house > Alarms\nAlarm: High; Limit: 5 bar\nAlarm: Low",
        "Pump house > Alarms\nOwner: Port",
        "Pump house > Alarms\none\n\ntwo",
        "Empty",
    ]


def test_tables_for_layout_are_read_as_paragraphs(cut: Cut) -> None:
    page = (
        "<table><tr><td>Menu<table><tr><th>A</th><th>B</th></tr><tr><td>1</td><td>2</td></tr>"
        "</table>after</td><td>Body</td></tr></table>"
    )
    texts = "\n".join(piece.text for piece in cut("a.htm", page))
    assert texts.splitlines() == ["Menu", "A: 1; B: 2", "after", "", "Body"]


@pytest.mark.parametrize("tag", ["div", "table><tr><td", "b", "h1"])
def test_deep_nesting_of_a_page_is_survived(cut: Cut, tag: str) -> None:
    assert cut("a.html", f"<p>first</p>{f'<{tag}>' * 20_000}last")[0].text.startswith("first")


def test_the_encoding_that_a_page_declares_counts(cut: Cut) -> None:
    page = '<meta charset="windows-1252"><p>Wärme à la carte</p>'
    assert cut("a.html", page.encode("cp1252"))[0].text == "Wärme à la carte"


def test_yaml_is_cut_at_its_top_level(cut: Cut) -> None:
    text = (
        f"# the server\nserver:\n  port: 1\n\n  name: {'x' * 50}\npumps:\n- P1\n- P2\n"
        f"tanks:\n{''.join(f'  tank{n}: {n}0 bar{chr(10)}' for n in range(20))}"
    )
    pieces = cut("a.yaml", text, max_chars=100)
    assert pieces[0].text == f"# the server\nserver:\n  port: 1\n\n  name: {'x' * 50}".replace(
        "\n\n", "\n"
    )
    assert pieces[1].text == "pumps:\n- P1\n- P2"
    assert all(piece.text.startswith("tanks:\n  tank") for piece in pieces[2:])
