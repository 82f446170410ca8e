"""The documentation against the code: every argument and option is in it, and its links lead somewhere."""

from __future__ import annotations

import ast
import inspect
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import vapoursynth as vs

from vszhdrv.command import arguments
from vszhdrv.light import ClipLight, FrameLight, encoder_arguments
from vszhdrv.options import OPTIONS
from vszhdrv.plugin import functions
from vszhdrv.plugin.preparing import prepare
from vszhdrv.zhdrv.config import PRESETS

ROOT = Path(__file__).parents[1]
sentences = runpy.run_path(str(ROOT / "scripts" / "sentences.py"))["sentences"]
README = (ROOT / "README.md").read_text()
COMMAND_LINE = (ROOT / "docs" / "command-line.md").read_text()
PARSERS = {
    "zhdrv INPUT": arguments.main_parser(),
    "train": arguments.train_parser(),
    "expand": arguments.expand_parser(),
    "levels": arguments.levels_parser(),
    "report": arguments.report_parser(),
    "still": arguments.still_parser(),
    "export": arguments.export_parser(),
}


def section(name: str) -> str:
    """The README's text under the heading `### name`."""
    return README.split(f"\n### {name}\n")[1].split("\n#")[0]


@pytest.mark.parametrize("name", ["Expand", "WriteEXR"])
def test_readme_has_every_argument(name: str) -> None:
    signature = getattr(vs.core.zhdrv, name).signature
    expected = [argument.split(":")[0] for argument in signature.split(";") if argument]
    rows = re.findall(r"^\| (`.+?) \|", section(name), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(rows))) == sorted(expected)


@pytest.mark.parametrize("name", OPTIONS)
def test_an_argument_means_the_same_wherever_it_is_described(name: str) -> None:
    meaning = OPTIONS[name]
    (row,) = re.findall(rf"^\| `{name}` \| .*?\| (.+?) \|$", section("Expand"), re.MULTILINE)
    assert row.startswith(meaning)
    assert meaning in re.sub(r"\s+", " ", inspect.getdoc(functions.expand) or "")
    helped = [action.help for action in PARSERS["expand"]._actions if action.dest == name]
    assert all((text or "").startswith(meaning) for text in helped)


@pytest.mark.parametrize(
    "function", [functions.expand, functions.mask, functions.train, functions.still, functions.show, prepare]
)
def test_the_public_face_is_written_out_and_typed(function: Callable[..., Any]) -> None:
    parameters = inspect.signature(function).parameters.values()
    assert not [
        parameter for parameter in parameters if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    assert all(parameter.annotation is not parameter.empty for parameter in parameters)
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) got an unexpected keyword argument 'presett'"):
        function(None, presett="fast")


@pytest.mark.parametrize(
    ("name", "others"), [("Mask", []), ("Train", ["path:data:opt"]), ("Still", ["path:data", "frame:int:opt"])]
)
def test_what_the_readme_says_expand_and_others_share(name: str, others: list[str]) -> None:
    signatures = {f: getattr(vs.core.zhdrv, f).signature.split(";") for f in ("Expand", name)}
    assert [argument for argument in signatures[name] if argument not in signatures["Expand"]] == others


def test_readme_has_every_function() -> None:
    functions = {function.name for function in vs.core.zhdrv.functions()} - {"Bridge"}
    headings = set(re.findall(r"^### (\w+)$", README, re.MULTILINE))
    assert headings == functions


def test_readme_has_the_presets_defaults() -> None:
    for name, presets in (("epochs", ("fast", "paper", "draft")), ("lr", ("fast", "paper"))):
        (row,) = re.findall(rf"^\| `{name}` \| (.+?) \|", section("Expand"), re.MULTILINE)
        assert [float(number) for number in re.findall(r"[\d.]+", row)] == [PRESETS[p][name] for p in presets]


@pytest.mark.parametrize("command", PARSERS)
def test_command_line_page_has_every_option(command: str) -> None:
    """As the sentences before its tables say: a command takes so many groups; rows may begin with commands."""
    groups = COMMAND_LINE.split("\n## Options\n")[1].split("\n## ")[0].split("\n\n| ")[1:]
    assert len(groups) == 4
    taken = {"zhdrv INPUT": 4, "train": 3, "expand": 3, "levels": 2, "report": 2, "still": 2, "export": 1}[command]
    expected = set()
    for number, group in enumerate(groups):
        for names, about in re.findall(r"^\| (`--.+?`) \| .*?\| (.*) \|$", group, re.MULTILINE):
            only = re.match(r"(`[a-zA-Z ]+`(?:, )?)+:", about)
            if f"`{command}`" in only[0] if only else number < taken:
                expected |= set(re.findall(r"--\w+", names))
    options = {option for action in PARSERS[command]._actions for option in action.option_strings}
    assert {option for option in options if option.startswith("--")} - {"--help", "--version"} == expected


PAGES = pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)


def anchors(page: Path) -> set[str]:
    """What links can name in a page: its headings, as GitHub spells them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@PAGES
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]*)(?:#([\w-]+))?\)", page.read_text()):
        found = page.parent / target if target else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found), f"{target}#{anchor}"


def commands(page: Path) -> list[str]:
    """What a page has people type after `zhdrv`."""
    return re.findall(r"^    (?:zhdrv|torchrun \S+ -m vszhdrv) (.+?)(?:  .*)?$", page.read_text(), re.MULTILINE)


def test_the_farms_page_has_commands() -> None:
    assert len(commands(ROOT / "docs" / "farms.md")) > 5


@PAGES
def test_commands_are_accepted(page: Path) -> None:
    parsers = {
        "train": arguments.train_parser,
        "expand": arguments.expand_parser,
        "levels": arguments.levels_parser,
        "report": arguments.report_parser,
        "still": arguments.still_parser,
        "export": arguments.export_parser,
        "shots": arguments.shots_parser,
        "cache": arguments.cache_parser,
        "doctor": arguments.doctor_parser,
    }
    for command in commands(page):
        words = shlex.split(command.replace(" [options]", "").replace(" KEY", " 0123"))
        parser = parsers[words.pop(0)]() if words[0] in parsers else arguments.main_parser()
        parsed = parser.parse_args(words)  # exits where it refuses
        if "action" in parsed:
            assert parsed.action == words[0]
        elif "input" in parsed:
            inputs = parsed.input if isinstance(parsed.input, list) else [parsed.input]
            assert [str(path) for path in inputs] == words[: len(inputs)]


@PAGES
def test_lines_for_scripts_name_scripts_that_know_their_options(page: Path) -> None:
    for line in re.findall(r"^ {4}uv run (scripts/.+(?:\\\n.+)*)$", page.read_text(), re.MULTILINE):
        script, *words = line.replace("\\\n", " ").split()
        source = (ROOT / script).read_text()
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert f'"{option}"' in source, f"{script} {option}"


@PAGES
def test_python_in_pages_compiles_and_names_arguments_that_exist(page: Path) -> None:
    text = page.read_text()
    for block in re.findall(r"^```python\n(.+?)^```", text, re.MULTILINE | re.DOTALL):
        for call in ast.walk(ast.parse(block)):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr == "Expand":
                assert {keyword.arg for keyword in call.keywords} <= set(inspect.signature(functions.expand).parameters)
    for name in re.findall(r"\bexamples/[\w/]+\.\w+", text):
        assert (ROOT / name).is_file(), name


def test_the_script_of_the_first_ten_minutes_runs(run_vspipe: Callable[..., Any], own_cache: Path) -> None:
    """With a few steps; `--info` trains too."""
    text = (ROOT / "docs" / "first-ten-minutes.md").read_text()
    (block,) = re.findall(r"^```python\n(.+?)^```", text, re.MULTILINE | re.DOTALL)
    script = block.replace("examples/room.mp4", str(ROOT / "examples" / "room.mp4"))
    assert "core.zhdrv.Expand(clip)" in script
    script = script.replace("core.zhdrv.Expand(clip)", 'core.zhdrv.Expand(clip[:4], preset="draft", epochs=1)')
    done = run_vspipe(script, "--info")
    assert done.returncode == 0, done.stderr
    assert "Format Name: RGBS" in done.stdout


def test_the_encoding_pages_commands_hold_the_lines_they_ask_for() -> None:
    """In a POSIX shell: a line's quotes neither end those around it nor are lost."""
    light = ClipLight(1, 16, 16)
    light.add(0, FrameLight(900.0, 100.0, (900.0, 800.0, 700.0), (0, 0, 16, 16)))
    lines = encoder_arguments(light, peak=1000)
    page = (ROOT / "docs" / "encoding.md").read_text()
    commands = [command for command in re.findall(r"^    (.+)$", page, re.MULTILINE) if "LINE" in command]
    programs = {"x265": "x265", "SvtAv1EncApp": "SVT-AV1", "ffmpeg": "ffmpeg, libx265", "av1an": "SVT-AV1"}
    assert len(commands) == len(programs)
    for command in commands:
        program = next(name for name in programs if f"{name} " in command)
        line = lines.lines()[programs[program]]
        shell = shlex.shlex(command.replace("LINE", line), posix=True, punctuation_chars=True)
        shell.whitespace_split = True
        words = list(shell)
        if program == "av1an":  # which takes its encoder's arguments apart in the same way
            words = shlex.split(words[words.index("-v") + 1])
        expected = shlex.split(line)
        assert any(words[n : n + len(expected)] == expected for n in range(len(words)))


@PAGES
def test_sentences_are_short(page: Path) -> None:
    counts = sentences(page.read_text())
    assert sum(counts) / len(counts) <= 16
    assert sum(count > 30 for count in counts) <= 0.05 * len(counts)
