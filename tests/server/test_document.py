"""An executed notebook becomes one HTML document of bounded size that asks nobody for anything."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import nbformat.v4 as v4
import pytest

from flowkit.server.dashboard.document import ALL, POLICY, TEXT, document
from tests.server.mix import code, prints, raises, report, shows


def rendered(*cells: Any, **metadata: Any) -> str:
    return document(json.dumps(v4.new_notebook(cells=list(cells), metadata=metadata)).encode(), name="n")


def test_the_document_names_no_other_machine_and_has_no_script() -> None:
    page = rendered(*report(), *report(failed=True))
    assert "http" not in page
    assert "<script" not in page


def test_source_markdown_outputs_and_parameters_are_all_there() -> None:
    page = rendered(*report())
    text = re.sub("<[^>]+>", "", page)
    assert "Late flights of a day" in text
    assert "parameters of this run" in text
    assert "reading 842 flights" in text
    assert 'src="data:image/png;base64,' in page
    assert '<table border="1" class="dataframe">' in page


def test_the_first_failed_cell_can_be_linked_to_and_its_colours_are_kept() -> None:
    trace = raises("KeyError", "'x'", ["\x1b[0;31mKeyError\x1b[0m: 'x' <b>"])
    page = rendered(code("1"), code("2", trace), code("3", trace))
    assert page.count('id="failed"') == 1
    assert page.index('id="failed"') < page.index(">3<")
    assert '<span class="ansi-red-fg">KeyError</span>: &#39;x&#39; &lt;b&gt;' in page


def test_what_is_not_markup_is_escaped() -> None:
    hostile = "<img src=x onerror=window.__x=1>"
    result = v4.new_output("execute_result", data={"text/plain": hostile})
    page = rendered(code(f"'{hostile}'", prints(hostile), prints(hostile, "stderr"), result), v4.new_raw_cell(hostile))
    assert "<img" not in page
    assert page.count("onerror") == 5


def test_what_was_printed_piece_by_piece_is_one_text_and_a_progress_bar_one_line() -> None:
    page = rendered(code("1", prints("one "), prints("two\n"), prints("10%\r 50%\r100%\n"), prints("!", "stderr")))
    assert ">one two\n100%\n</pre>" in page
    assert page.count("<pre class=") == 2


def test_a_picture_is_preferred_to_markup_that_wants_a_script() -> None:
    picture = base64.b64encode(b"png").decode()
    both = shows({"text/html": "<div></div><SCRIPT>draw()</SCRIPT>", "image/png": picture})
    assert "SCRIPT" not in rendered(code("1", both))
    assert "wants to run a script" in rendered(code("1", shows({"text/html": "<script>draw()</script>"})))
    assert "application/x-unknown" in rendered(code("1", shows({"application/x-unknown": "?"})))


def test_an_svg_is_a_picture_that_runs_nothing() -> None:
    page = rendered(code("1", shows({"image/svg+xml": "<svg onload='x()'></svg>"})))
    assert "onload" not in page
    assert "data:image/svg+xml;base64," in page


def test_links_out_of_a_notebook_open_a_tab_and_links_within_it_do_not() -> None:
    page = rendered(v4.new_markdown_cell("[out](https://example.com) [in](#failed)"))
    assert '<a target="_blank" rel="noopener noreferrer" href="https://example.com">' in page
    assert '<a href="#failed">' in page


def test_a_big_notebook_is_cut_to_a_size_a_browser_shows_and_says_what_is_missing() -> None:
    lines = prints("".join(f"line {n}\n" for n in range(40_000)))
    picture = shows({"image/png": "A" * 3_000_000})
    table = shows({"text/html": "<table>" + "<tr><td>1</td></tr>" * 100_000 + "</table>"})
    cells = [code("a", lines), code("b", table), *(code("c", picture) for _ in range(5)), code("d", prints("the end"))]
    began = time.monotonic()
    page = rendered(*cells, code("e", raises("ValueError", "why", ["ValueError: why"])))
    took = time.monotonic() - began
    assert len(page) < ALL + 1_000_000
    assert "line 0\n" in page
    assert "line 39999\n" in page
    assert "line 20000\n" not in page
    assert f"{len(lines['text']) - TEXT:,} characters are left out here" in page
    assert "text/html of 1.9 MB is left out here" in page
    assert page.count("image/png of 3.0 MB is left out here") == 3
    assert "ValueError: why" in page
    assert took < 5


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b"\xff", b'{"cells": [{"cell_type": "code", "outputs": [1]}]}']
)
def test_a_file_that_is_no_notebook_is_told_so(content: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be read as a notebook"):
        document(content, name="n")


@pytest.mark.filterwarnings("ignore:No lexer")
def test_an_unknown_language_is_shown_without_colours() -> None:
    assert "x <- 1" in re.sub("<[^>]+>", "", rendered(code("x <- 1"), language_info={"name": "brainwave"})).replace(
        "&lt;", "<"
    )


def test_the_policy_lets_nothing_run_and_nothing_load() -> None:
    assert "default-src 'none'" in POLICY
    assert "sandbox allow-popups" in POLICY
    assert "allow-scripts" not in POLICY
    assert "allow-same-origin" not in POLICY
