#!/usr/bin/env python3
"""docs/cli.md has every option that the program tells of and no other; a command line in a document or script has options of its
command alone.

    documented.py HYPURA REPOSITORY
"""
import glob
import re
import subprocess
import sys

program, root = sys.argv[1:3]
OPTION = r"(?<![\w-])--[a-z][a-z-]*"


def ask(*words):
    return subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


commands = re.findall(r"^  ([a-z-]+)  ", ask("help").partition("commands:")[2].partition("environment:")[0], re.MULTILINE)
options = {name: set(re.findall(rf"^  ({OPTION})", ask(name, "--help"), re.MULTILINE)) - {"--help"} for name in commands}
every = set().union(*options.values())
cli = read(f"{root}/docs/cli.md")
told = set(re.findall(OPTION, cli)) - {"--help", "--version"}

problems = []
if len(commands) < 10 or len(every) < 50:
    problems.append("the program's help could not be read")
problems += [f"docs/cli.md lacks {name}" for name in sorted(every - told)]
problems += [f"docs/cli.md has {name}, which is no option" for name in sorted(told - every)]
for name in commands:
    row = re.search(rf"^\| `{name}[ `].*$", cli, re.MULTILINE)
    if not row:
        problems.append(f"docs/cli.md has no row for {name}")
    elif "| below |" not in row[0] and set(re.findall(OPTION, row[0])) != options[name]:
        problems.append(f"docs/cli.md: the row of {name} has not the options of its --help")

lines = 0
paths = ["README.md", "docs/**/*.md", "bench/*", "scripts/*", "share/**/*.in"]
for path in (found for pattern in paths for found in glob.glob(f"{root}/{pattern}", recursive=True)):
    for name, words in re.findall(rf"\bhypura ({'|'.join(commands)})\b((?:[^`\n|;#&]|\\\n)*)", read(path)):
        lines += 1
        for option in set(re.findall(OPTION, words)) - options[name] - {"--help"}:
            problems.append(f"{path}: {name} has no {option}")
if lines < 30:
    problems.append("hardly any command line was found")
print("\n".join(problems))
sys.exit(1 if problems else 0)
