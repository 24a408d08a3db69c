from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloche.report.markdown import from_html


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        ("<h2>Results</h2>after", "## Results\n\nafter\n"),
        (
            "<table><tr><th>File</th><th>Result</th></tr><tr><td>a.js</td><td>Pass</td></tr></table>",
            "| File | Result |\n|---|---|\n| a.js | Pass |\n",
        ),
        (
            "<table>\n  <tr>\n    <td>a</td>\n    <td>b</td>\n  </tr>\n</table>",
            "| a | b |\n|---|---|\n",
        ),
        ("<details><summary>More</summary>inside</details>", "**More**\n\ninside\n"),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two\n"),
        ('<pre lang="js"><code>x = 1</code></pre>', "```\nx = 1\n```\n"),
        ('see <a href="https://example.org/x">the page</a>', "see the page (https://example.org/x)\n"),
        ('<img src="chart.png" alt="chart">', "chart\n"),
        ("a<br>b <b>bold</b> <custom-tag>kept</custom-tag>", "a\nb **bold** <custom-tag>kept</custom-tag>\n"),
        ("before<!-- hidden -->after", "beforeafter\n"),
        ("1 < 2 and 3 > 2", "1 < 2 and 3 > 2\n"),
    ],
)
def test_html_of_step_summaries_becomes_markdown(html: str, markdown: str) -> None:
    assert from_html(html) == markdown


@pytest.mark.parametrize("code", ["`Vec<T>`", "```\n<b>`x`</b>\n```", "~~~html\n<p>\n~~~"])
def test_code_keeps_its_angle_brackets(code: str) -> None:
    assert from_html(f"{code}\n<b>x</b>") == f"{code}\n**x**\n"


def test_markdown_without_html_is_left_alone() -> None:
    assert from_html("# Title\n\n\n\n* item") == "# Title\n\n\n\n* item"


@given(
    st.lists(
        st.sampled_from(
            ["<table>", "<tr>", "</td>", "<a href=", "</a>", "<!--", "`", "```\n", "<", ">", "x\n"]
        )
    )
)
def test_no_nesting_is_too_wild(pieces: list[str]) -> None:
    from_html("".join(pieces))
