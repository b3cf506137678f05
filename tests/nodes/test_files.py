"""Tables as files: they come back as they were, appear whole or not at all, and need not fit into the memory."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pandas as pd
import polars as pl
import pyarrow.parquet
import pytest

from flowkit.errors import Unavailable, UsageError
from flowkit.nodes import files, places

DATA = {"zip": ["01234", "99999"], "n": [1, 2], "x": [0.5, 1.5], "text": ["=1+1", 'ä,"b"\nc']}

FORMATS = {
    "csv": (files.write_csv, lambda path: files.read_csv(path, types={"zip": "str"})),
    "csv.gz": (files.write_csv, lambda path: files.read_csv(path, types={"zip": "str"})),
    "parquet": (files.write_parquet, files.read_parquet),
    "jsonl": (files.write_json_lines, files.read_json_lines),
    "xlsx": (files.write_excel, files.read_excel),
}


@pytest.mark.parametrize("end", FORMATS)
@pytest.mark.parametrize("where", ["{folder}/new/", "file://{folder}/new/", "memory://files/"])
def test_a_table_comes_back_as_it_was_from_wherever_it_is(end, where, tmp_path):
    write, read = FORMATS[end]
    path = f"{where.format(folder=tmp_path)}orders.{end}"
    frame = pd.DataFrame(DATA)

    assert write(frame, path) == path
    found = read(path)

    pd.testing.assert_frame_equal(
        found.astype({"zip": "str", "text": "str"}), frame.astype({"zip": "str", "text": "str"})
    )
    assert [Path(name).name for name in places.find(path.replace("orders", "*"))] == [f"orders.{end}"]


@pytest.mark.parametrize("end", ["csv", "parquet", "jsonl", "xlsx"])
def test_frames_of_polars_are_written_too(end, tmp_path):
    write, read = FORMATS[end]
    found = read(write(pl.DataFrame(DATA), str(tmp_path / f"orders.{end}")))
    assert found.n.tolist() == [1, 2]


def test_a_pattern_is_one_table_in_the_order_of_names(tmp_path):
    for day in (3, 1, 2):
        files.write_csv(pd.DataFrame({"day": [day]}), str(tmp_path / f"2013-{day}.csv"))

    assert files.read_csv(str(tmp_path / "2013-*.csv")).day.tolist() == [1, 2, 3]
    files.csv_to_parquet(str(tmp_path / "2013-*.csv"), str(tmp_path / "year.parquet"))
    assert files.read_parquet(str(tmp_path / "year.parquet")).day.tolist() == [1, 2, 3]
    assert [Path(name).name for name in files.find(str(tmp_path / "*.csv"))] == [
        "2013-1.csv",
        "2013-2.csv",
        "2013-3.csv",
    ]
    with pytest.raises(Unavailable, match=r"there is no file .*2014"):
        files.read_csv(str(tmp_path / "2014-*.csv"))


@pytest.mark.parametrize("where", ["{folder}/", "memory://whole/"])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_beside_it(where, tmp_path):
    path = f"{where.format(folder=tmp_path)}orders.parquet"
    files.write_parquet(pd.DataFrame({"n": [1]}), path)
    before = files.find(path.replace("orders", "*"))

    with pytest.raises(Exception, match="object"):
        files.write_parquet(pd.DataFrame({"n": [object()]}), path)

    assert files.read_parquet(path).n.tolist() == [1]
    assert files.find(path.replace("orders", "*")) == before
    assert [one.name for one in tmp_path.iterdir()] == ([] if "memory" in where else ["orders.parquet"])


def test_a_file_keeps_its_rights_and_a_new_one_has_the_usual_ones(tmp_path):
    path = tmp_path / "orders.csv"
    files.write_csv(pd.DataFrame(DATA), str(path))
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert path.stat().st_mode == ordinary.stat().st_mode
    path.chmod(0o640)
    files.write_csv(pd.DataFrame(DATA), str(path))
    assert path.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("url", ["http://169.254.169.254/x.csv", "simplecache::https://example.org/x.csv"])
def test_the_web_is_not_read_behind_the_back_of_the_http_nodes(url):
    with pytest.raises(UsageError, match=r"fetch it with http\.download"):
        files.read_csv(url)


def test_what_cannot_be_read_says_which_file_and_why(tmp_path):
    path = tmp_path / "orders.csv"
    path.write_text("a,b\n1,2\n3,4,5,6\n")
    with pytest.raises(Unavailable, match=r"orders\.csv cannot be read: .*Expected 2 fields in line 3"):
        files.read_csv(str(path))
    with pytest.raises(UsageError, match="nosuch://x cannot be reached"):
        files.read_csv("nosuch://x")
    with pytest.raises(UsageError, match="is a pattern, and a file is written at one place"):
        files.write_csv(pd.DataFrame(DATA), "data/*.csv")


def test_a_column_that_changes_its_type_is_named_and_can_be_told(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "_BLOCK", 1000)
    lines = [f"{n},{'' if n < 900 else 'late'}" for n in range(1000)]
    path = tmp_path / "orders.csv"
    path.write_text("id,note\n" + "\n".join([*lines, "A-1,x"]))
    target = str(tmp_path / "orders.parquet")

    with pytest.raises(Unavailable, match=r"cannot become Parquet: .*'A-1'.*say it by types="):
        files.csv_to_parquet(str(path), target)
    files.csv_to_parquet(str(path), target, types={"id": "string"})

    found = files.read_parquet(target)
    assert found.id.tolist()[-2:] == ["999", "A-1"]
    assert found.note.dropna().tolist() == ["late"] * 100 + ["x"], "empty at first, so it is text"
    with pytest.raises(UsageError, match="types= names what Arrow does not know"):
        files.csv_to_parquet(str(path), target, types={"id": "str1ng"})


def test_a_csv_of_any_size_becomes_parquet_in_the_same_memory(tmp_path):
    """`make bench` takes one ten times its run's memory limit."""
    script = """
        import re, sys
        import pandas, pyarrow.csv, pyarrow.parquet
        from flowkit.nodes import files

        def resident(what):
            return int(re.search(what + r":\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1000

        before = resident("VmRSS")
        getattr(files, sys.argv[1])("large.csv", *sys.argv[2:])
        print(resident("VmHWM") - before)
    """
    large = tmp_path / "large.csv"
    rows = b"".join(b"%07d,some text to fill the l,\n" % n for n in range(10_000))
    with large.open("wb") as file:
        file.write(b"n,text,empty\n")
        for _ in range(800):
            file.write(rows)

    def megabytes(*arguments: str) -> float:
        command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=170)
        assert done.returncode == 0, done.stderr[-2000:]
        return float(done.stdout)

    assert megabytes("csv_to_parquet", "large.parquet") < 200 < megabytes("read_csv")
    assert large.stat().st_size > 250_000_000
    assert pyarrow.parquet.ParquetFile(tmp_path / "large.parquet").metadata.num_rows == 8_000_000
