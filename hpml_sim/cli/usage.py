"""The command line, parsed: help with examples, and mistakes in one line."""

from __future__ import annotations

import contextlib
import difflib
import functools
import io
import re
import shutil
import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import tyro

from hpml_sim.cards import list_cards
from hpml_sim.cli.examples import EXAMPLES
from hpml_sim.data import list_data
from hpml_sim.errors import HpmlError
from hpml_sim.networks.importing import names_code
from hpml_sim.networks.loading import list_networks

_PYTHONS_WORDS = (
    (re.compile(r"invalid literal for int\(\) with base 10: (.*)"), r"\1 is no whole number"),
    (re.compile(r"could not convert string to float: (.*)"), r"\1 is no number"),
    (re.compile(r"no type matching \{None\}\|INT could be instantiated from \[('[^']*')\]"), r"\1 is no whole number"),
    (re.compile(r"no type matching \{None\}\|FLOAT could be instantiated from \[('[^']*')\]"), r"\1 is no number"),
    (re.compile(r"no type matching .* could be instantiated from \[(.*?)\]"), r"cannot take \1"),
)

_COMPARING = ("compare", "sweep", "search", "assign")
"""Verbs that take --model, --data and --targets."""
_OPTION = re.compile(r"--[a-z][\w-]*(?: [A-Z{\[].*)?|[A-Z]{2,}(?: \[[A-Z]+ \.\.\.\])?|\{[a-z,]+\}")
"""A line of help that holds nothing but an option, with its metavar where it has one."""


def parsed(verbs: Mapping[str, Callable[..., int]], arguments: list[str], description: str) -> Callable[[], int]:
    """What the arguments ask for, ready to be called; help is printed at once, and asks for nothing more.

    Args:
        verbs: functions by the words that call them.
        arguments: of the command line.
        description: of the command, for its help.

    Raises:
        HpmlError: the arguments cannot be understood.
    """
    verb = arguments[0] if arguments and arguments[0] in verbs else ""
    later = {name: _later(function) for name, function in verbs.items()}
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return tyro.extras.subcommand_cli_from_dict(
                later, prog="hpml-sim", description=description, args=arguments, config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as left:
        if left.code:
            raise HpmlError(usage_message(err.getvalue(), verb)) from None
    print(_wrapped(out.getvalue()))
    if {"-h", "--help"} & set(arguments):
        print("\nexamples:", *(f"  {example}" for example in EXAMPLES[verb]), sep="\n")
    return lambda: 0


def _wrapped(text: str) -> str:
    """The help with its paragraphs wrapped at words, which tyro leaves to the terminal, and no list of verbs on top."""
    width = shutil.get_terminal_size().columns
    text = re.sub(r"^usage: hpml-sim \[-h\] \{.*\}", "usage: hpml-sim VERB [OPTIONS]", text)
    return "\n".join(
        line if line.startswith(" ") else textwrap.fill(line, width, break_long_words=False, break_on_hyphens=False)
        for line in map(str.rstrip, text.rstrip().splitlines())
    )


def _later(function: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """The verb with the same arguments; it runs once everything is parsed, so that what it prints is no help text."""

    @functools.wraps(function)
    def bind(*args: Any, **options: Any) -> Callable[[], int]:
        return functools.partial(function, *args, **options)

    return bind


def usage_message(said: str, verb: str) -> str:
    """One line of what tyro says in 5 to 35.

    Args:
        said: what it printed: a title, what is wrong, and help, parted by rules.
        verb: the verb that was meant; "" where there is none.
    """
    lines = [line.strip().strip("│").rstrip() for line in said.splitlines()]
    rules = [i for i, line in enumerate(lines) if len(line) > 3 and set(line.strip()) <= set("─-╭╮╰╯")]
    begin = rules[0] + 1 if rules else 0
    end = next((i for i in rules if i >= begin), len(lines))
    text = " ".join(" ".join(lines[begin:end]).split())
    alone = [line.strip() for line in lines[begin:] if _OPTION.fullmatch(line.strip())]
    command = " ".join(part for part in ("hpml-sim", verb, "--help") if part)
    return f"{_problem(text, alone, verb).rstrip('.')} (`{command}` explains the options)"


def _meant(words: Sequence[str], verb: str) -> str:
    """What to do about words that stand alone: the options of a comparison whose values they are, or nothing."""
    if verb not in _COMPARING:
        return "leave it out"
    if words[0].endswith(".toml") and Path(words[0]).is_file():
        return f"did you mean `hpml-sim run {words[0]}`?"
    named = {"--model": list_networks(), "--data": list_data(), "--targets": list_cards()}
    owner = {name: option for option, names in named.items() for name in names}
    given: dict[str, list[str]] = {}
    for word in words:
        # what is no name here is a file with a callable, a folder, or a network on a hub
        near = difflib.get_close_matches(word, sorted(owner), n=1, cutoff=0.6)
        if near and not word.isdigit():
            given.setdefault(owner[near[0]], []).append(near[0])
        elif names_code(word) or "/" in word:
            given.setdefault("--model", []).append(word)
    return (
        f"did you mean {' '.join(' '.join([option, *of]) for option, of in given.items())}?"
        if given
        else "leave it out"
    )


def _problem(text: str, options: list[str], verb: str) -> str:
    """What is wrong, from the text and from the lines that hold nothing but an option with its metavar."""
    if found := re.match(r"Unrecognized (?:or misplaced )?options: (.*)", text):
        words = (
            re.sub(r" \(applied to .*?\)", ",", found[1]).partition("Arguments are applied")[0].strip(" ,").split(", ")
        )
        wrong = next((word for word in words if word.startswith("-")), None)
        if wrong is None:
            return f"{', '.join(map(repr, words))}: no option takes this value; {_meant(words, verb)}"
        names = {option.split()[0].strip("-") for option in options} - {wrong.strip("-")}
        near = difflib.get_close_matches(wrong.strip("-"), sorted(names), n=1, cutoff=0.7)
        return f"unknown option {wrong}" + (f"; did you mean --{near[0]}?" if near else "")
    if found := re.match(r"invalid choice '(.*?)' for argument '(.*?)'\. Expected one of [({\[](.*)[)}\]]", text):
        allowed = sorted(set(re.findall(r"'([^']+)'", found[3])) - {"None"})
        near = difflib.get_close_matches(found[1], allowed, n=1, cutoff=0.5)
        return f"{found[2]} {found[1]!r}: " + (f"did you mean {near[0]!r}?" if near else f"one of {', '.join(allowed)}")
    if text.startswith("Missing from"):
        return f"missing: {', '.join(options)}"
    if found := re.match(r"Error parsing (\S+): (.*)", text):
        how = next((option for option in options if option.split()[0] == found[1]), "")
        return f"{found[1]}: {_in_our_words(found[2])}" + (f"; give {how}" if how else "")
    return text or "the arguments cannot be understood"


def _in_our_words(message: str) -> str:
    for python, ours in _PYTHONS_WORDS:
        if found := python.match(message):
            return found.expand(ours)
    return message
