"""The documents say what is. `python -m tests.test_docs` writes anew what is generated."""

from __future__ import annotations

import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from flowkit.cli import cli
from flowkit.config import Config
from flowkit.model import EXIT_CODES, MOVES, Cause, State
from flowkit.server.api import make_api
from flowkit.server.guard import needed
from tests.flow.written import run

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in [ROOT / "README.md", ROOT / "CHANGELOG.md", *ROOT.glob("docs/*.md")]}
REFERENCE = ROOT / "docs" / "cli.md"
API = ROOT / "docs" / "api.md"
NODES = ROOT / "docs" / "nodes.md"


def commands(group: click.Group = cli, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """Every command by its name, those of a group by both names; a group itself does nothing."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{path}{name} ")
        else:
            yield path + name, command


def generated() -> str:
    """docs/cli.md: the help of every command, as it is printed."""
    parts = [
        "# The command line\n\nWhat `flowkit COMMAND --help` prints; written by `make docs`.\n",
        _help(cli, "flowkit"),
        *(_help(command, f"flowkit {name}") for name, command in commands()),
    ]
    return "\n".join(parts)


def _help(command: click.Command, path: str) -> str:
    # With what the group sets for its commands when it calls them; click keeps the first help option it makes.
    context = click.Context(command, info_name=path, **cli.context_settings, terminal_width=100)
    text = command.get_help(context)
    return f"## {path}\n\n```\n{text}\n```\n"


def test_the_readme_names_every_command_with_what_its_help_says() -> None:
    rows = dict(re.findall(r"^\| `flowkit ([^`]+)` \| (.+) \|$", README, re.M))
    for name, command in commands():
        context = click.Context(command, info_name=name)
        arguments = [p.make_metavar(context) for p in command.params if isinstance(p, click.Argument)]
        usage = " ".join([name, *arguments]).replace("|", r"\|")
        assert command.help is not None
        first = re.split(r"(?<=\.)\s", " ".join(command.help.split()))[0]
        assert rows.pop(usage, None) == first, usage
    assert rows == {}


def test_the_reference_of_the_command_line_is_what_help_prints() -> None:
    assert REFERENCE.read_text() == generated(), "run: make docs"


def test_the_reference_lists_every_setting_with_its_meaning() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    assert Config.from_env.__doc__ is not None
    names = re.findall(r"^ {8}(FLOWKIT_\w+)", Config.from_env.__doc__, re.M)
    assert len(names) >= 6
    for name in names:
        assert f"`{name}`" in text


def test_the_reference_lists_states_causes_and_exit_codes() -> None:
    text = (ROOT / "docs" / "reference.md").read_text()
    for state in State:
        assert f"`{state}`" in text
    for cause in Cause:
        assert re.search(rf"\| `{cause}` \|.*\| {EXIT_CODES[cause]} \|", text), cause
    for state, targets in MOVES.items():
        for target in targets:
            assert f"{state} → {target}" in text, "a move of the table is not in the reference"


@pytest.mark.parametrize("name", DOCS)
def test_every_link_between_documents_leads_somewhere(name: str) -> None:
    folder = ROOT if name in ("README.md", "CHANGELOG.md") else ROOT / "docs"
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", DOCS[name]):
        assert (folder / target).exists(), f"{name} links to {target}"


@pytest.mark.parametrize("name", [name for name in DOCS if "```python" in DOCS[name]])
def test_the_code_in_the_documents_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All python blocks of a document, in order, as cells of one notebook. One marked `# not run` is only compiled."""
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", DOCS[name], re.S), 1):
        file = f"{name}, block {number}"
        compile(block, file, "exec")
        if "# not run" not in block:
            run(block, namespace, file=file)


@pytest.mark.parametrize("name", [name for name in DOCS if name != "CHANGELOG.md"])
def test_every_flowkit_command_in_the_documents_exists(name: str) -> None:
    for line in re.findall(r"^\$ (?:\w+=\S+ )*flowkit (.+)$", DOCS[name], re.M):
        words = line.split("#")[0].split()
        known = dict(commands())
        name = words[0] if words[0] in known else " ".join(words[:2])
        assert name in known, line
        options = {name for param in known[name].params for name in param.opts}
        for word in words[1:]:
            if word.startswith("-") and not re.fullmatch(r"-\d+", word):
                assert word in options, line


def generated_api() -> str:
    """docs/api.md: every route, who may, and what it takes."""
    app = make_api(*[None] * 4)  # type: ignore[arg-type]  # what a route does it says without doing it
    told = app.openapi()
    parts = [
        "# The API\n\nEvery route of `flowkit dashboard`, as its OpenAPI description has it; written by `make docs`.\n"
    ]
    parts += [f"{told['info']['description'].strip()}\n", "The description itself: `GET /api/v1/openapi.json`.\n"]
    tag = None
    for path, methods in told["paths"].items():
        for method, route in methods.items():
            if route["tags"][0] != tag:
                tag = route["tags"][0]
                parts.append(f"\n## {tag.capitalize()}\n\n| | for | takes | |\n|---|---|---|---|\n")
            takes = [f"`{one['name']}`" for one in route.get("parameters", []) if one["in"] != "path"]
            body = route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
            name = next((one["$ref"] for one in (body, *body.get("anyOf", ())) if "$ref" in one), "/").rpartition("/")[
                2
            ]
            if name:
                takes += [f"`{field}`" for field in told["components"]["schemas"][name]["properties"]]
            said = " ".join(route.get("description", route["summary"]).split())
            role = needed(path, method.upper()) or "anybody"
            parts.append(f"| `{method.upper()} {path}` | {role} | {', '.join(takes)} | {said} |\n")
    return "\n".join(parts).replace("|\n\n|", "|\n|")


def test_the_reference_of_the_api_is_what_it_says_of_itself() -> None:
    assert API.read_text() == generated_api(), "run: make docs"


def generated_nodes() -> str:
    """docs/nodes.md: the families of the node library in the order of their entry points, each function by itself."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    parts = [
        "# The node library\n\nPlain functions, for a cell, a flow or the editor's palette; written by `make docs` "
        'from what `help()` says of them. All of them: `pip install "flowkit[nodes]"`.\n'
    ]
    for path in project["entry-points"]["flowkit.nodes"].values():
        module = importlib.import_module(path)
        family = path.rpartition(".")[2]
        needs = f'`pip install "flowkit[{family}]"`. ' if family in project["optional-dependencies"] else ""
        parts.append(f"\n## {family}\n\n{needs}{_plain(inspect.getdoc(module))}\n")
        for name in module.__all__:
            function = getattr(module, name)
            signature = inspect.signature(function)
            short = signature.replace(parameters=[p.replace(annotation=p.empty) for p in signature.parameters.values()])
            returned = str(signature.return_annotation).strip("'")
            first, _, rest = _plain(inspect.getdoc(function)).partition("\n\n")
            described, *listed = re.split(r"^(Args|Raises):\n", rest, flags=re.M)
            text = f"### {family}.{name}\n\n`{name}{str(short).partition(' ->')[0]}` gives `{returned}`\n\n{first}\n"
            text += f"\n{described.strip()}\n" if described.strip() else ""
            for what, items in zip(listed[::2], listed[1::2], strict=True):
                text += f"\n| {'argument' if what == 'Args' else 'raises'} | |\n|---|---|\n"
                for one in re.split(r"\n(?=    \w)", items.rstrip()):
                    key, _, meaning = " ".join(one.split()).partition(": ")
                    kind = signature.parameters[key].annotation if what == "Args" else None
                    told = f"`{key}`" + (f": `{kind}`" if kind else "")
                    text += f"| {told} | {meaning} |\n".replace(" | None", " \\| None").replace("| None`", "| None`")
            parts.append(text)
    return "\n".join(parts)


def _plain(doc: str | None) -> str:
    assert doc, "a node of the library says what it does"
    return doc.replace("``", "`")


def test_the_reference_of_the_nodes_is_what_their_docstrings_say() -> None:
    assert NODES.read_text() == generated_nodes(), "run: make docs"


if __name__ == "__main__":
    NODES.write_text(generated_nodes())
    REFERENCE.write_text(generated())
    API.write_text(generated_api())
