"""Whatever the README shows works: its commands run, its options exist, its links lead somewhere."""

import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from typer.testing import CliRunner

from unetctl.cli.app import app

PROJECT = Path(__file__).parent.parent
README = (PROJECT / "README.md").read_text(encoding="utf-8")

# A fenced block, with the comment on the line above it if there is one.
_BLOCK = re.compile(r"(?:^<!-- (?P<mark>[a-z: ]+) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.M | re.S)
_OPTION = re.compile(r"(?<![\w-])--?[a-zA-Z][a-z-]*")


def blocks(mark: str | None = None) -> list[str]:
    """The fenced blocks of the README, or those under the comment ``<!-- mark -->``."""
    return [found["body"] for found in _BLOCK.finditer(README) if mark is None or found["mark"] == mark]


def shown_commands(text: str) -> list[str]:
    """Every call of the program in a Markdown text, from the word ``unetctl`` to the end of that one command."""
    code = [found["body"].replace("\\\n", " ") for found in _BLOCK.finditer(text)]
    code += re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))
    lines = [re.sub(r"(^|\s)#.*", "", line) for part in code for line in part.splitlines()]
    parts = [part.strip() for line in lines for part in re.split(r"&&|\|\||[;|](?=\s|$)", line)]
    commands = [part.removeprefix("$ ") for part in parts]
    return sorted({command for command in commands if re.match(r"unetctl(\s|$)", command)})


def words_and_options(command: str) -> tuple[tuple[str, ...], list[str]]:
    """Subcommand (and its own, if it has one) of a shown command, and the options that it is shown with."""
    words: list[str] = []
    for word in command.split()[1:3]:
        if not re.fullmatch("[a-z]+", word):
            break
        words.append(word)
    bare = re.sub(r"'[^']*'|\"[^\"]*\"", "", command)
    return tuple(words), _OPTION.findall(bare)


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The installed program on PATH; from a bare checkout, what the installed script would be."""
    scripts = Path(sys.executable).parent
    if not shutil.which("unetctl", path=str(scripts)):
        scripts = tmp_path_factory.mktemp("bin")
        script = scripts / "unetctl"
        script.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(PROJECT)!r})\n"
            "from unetctl.cli.app import main\nsys.exit(main())\n"
        )
        script.chmod(0o755)
    path = os.pathsep.join([str(scripts), str(Path(sys.executable).parent), os.environ["PATH"]])
    return {**os.environ, "PATH": path, "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


@cache
def help_of(words: tuple[str, ...]) -> str:
    """What ``unetctl WORDS --help`` prints."""
    width: dict[str, str | None] = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    told = CliRunner().invoke(app, [*words, "--help"], env=width)
    assert told.exit_code == 0, f"{words}: {told.output}"
    return told.stdout


def test_ci_finds_its_two_commands():
    assert len(blocks("ci: install")) == 1
    assert len(blocks("ci: test")) == 1


def test_commands_are_marked():
    assert len(blocks("test")) > 3, "the README marks its commands with <!-- test -->"


@pytest.mark.skipif(os.name == "nt", reason="the README's commands are for a POSIX shell")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("body", blocks("test"), ids=lambda body: body.split("\n", 1)[0])
def test_commands_run(environment, tmp_path, body):
    """Each block under ``<!-- test -->`` in an empty folder: whatever a reader pastes first works."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", body],
        cwd=tmp_path,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{body}\nended with {done.returncode}\n{done.stdout}\n{done.stderr}"


def test_options_exist():
    unknown = []
    for command in shown_commands(README):
        words, options = words_and_options(command)
        known = help_of(words)
        unknown += [f"{command}: {o}" for o in options if not re.search(rf"(?<![\w-]){re.escape(o)}(?![\w-])", known)]
    assert not unknown, "\n".join(unknown)


def test_batch_scripts_are_sound():
    """The scripts in pipelines/jobs parse, and every option that they use exists."""
    scripts = sorted((PROJECT / "pipelines" / "jobs").iterdir())
    assert scripts
    for script in scripts:
        text = script.read_text(encoding="utf-8")
        if script.suffix == ".sbatch":
            subprocess.run(["bash", "-n", str(script)], check=True)
        if script.name.startswith("crontab"):
            for line in (line for line in text.splitlines() if line and not line.startswith("#")):
                assert re.match(r"([\d*/,-]+\s+){5}\S", line), line
                assert not re.search(r"(?<!\\)%", line), f"cron reads a bare % as a line break: {line}"
        calls = re.findall(r"unetctl (?:predict|train|stitch|info)[^\n&|;]*", text)
        assert calls, script
        for call in calls:
            words, options = words_and_options(call)
            unknown = [o for o in options if not re.search(rf"(?<![\w-]){re.escape(o)}(?![\w-])", help_of(words))]
            assert not unknown, f"{script}: {call}"


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", _BLOCK.sub("", README))
    missing = [link for link in links if not (PROJECT / link).exists()]
    assert not missing, f"README.md links to {missing}"


def test_commands_are_seen():
    """The eyes of the tests above: a reading that finds nothing finds nothing wrong."""
    text = (
        "Say `unetctl info FILE` or `unetctl predict IN [-o OUT] [--part i/n]`, not `pip install unetctl`.\n"
        "<!-- test -->\n```bash\n"
        "cd x && unetctl benchmark speed --json | head  # not --this\n"
        "$ unetctl train --data ./mine \\\n    --set train.epochs=2\n"
        "unetctl info 'a --b.tif'\n```\n"
    )
    found = dict(zip(shown_commands(text), map(words_and_options, shown_commands(text)), strict=True))
    assert list(found.values()) == [
        (("benchmark", "speed"), ["--json"]),
        (("info",), []),
        (("info",), []),
        (("predict",), ["-o", "--part"]),
        (("train",), ["--data", "--set"]),
    ]
    assert [m["mark"] for m in _BLOCK.finditer(text)] == ["test"]
