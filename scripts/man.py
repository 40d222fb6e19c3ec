#!/usr/bin/env python3
"""Writes the man page hypura(1) from what the program says of itself: man.py HYPURA > hypura.1

A second list of options would be one that is wrong some day.
"""
import re
import subprocess
import sys

program = sys.argv[1]


def ask(*words):
    return subprocess.run([program, *words], check=True, capture_output=True, text=True).stdout


def roff(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(['.])", r"\\&\1", text)


def paragraphs(lines):
    out = []
    for line in lines:
        if line.strip():
            out.append(roff(line.strip()))
        elif out and out[-1] != ".PP":
            out.append(".PP")
    while out and out[-1] == ".PP":
        out.pop()
    return out


def entries(lines):
    """Lines of "  NAME  what it is", and what goes on in the next line further in."""
    found = []
    for line in lines:
        entry = re.match(r"  (\S.*?)  +(\S.*)$", line)
        if entry and not line.startswith("   "):
            found.append([entry[1], entry[2]])
        elif found and line.strip():
            found[-1][1] += " " + line.strip()
    return found


def listed(pairs):
    out = []
    for name, text in pairs:
        option, _, value = name.partition(" ")
        out += [".TP", f"\\fB{roff(option)}\\fR" + (f" \\fI{roff(value)}\\fR" if value else ""), roff(text)]
    return out


def sections(text):
    """The usage line, and the lines under each heading ("options:"); "" is what comes before the first."""
    lines = text.splitlines()
    parts, heading = {"": []}, ""
    for line in lines[1:]:
        if re.fullmatch(r"[a-z]+:", line):
            heading = line[:-1]
            parts[heading] = []
        else:
            parts[heading].append(line)
    return lines[0].removeprefix("usage: "), parts


_, top = sections(ask("help"))
version = ask("--version").split()[1]
commands = [(name, text) for name, text in entries(top["commands"]) if not name.startswith("hypura")]
page = [f'.TH HYPURA 1 "" "hypura {version}" "User Commands"', ".SH NAME",
        "hypura \\- runs language models that are larger than memory", ".SH SYNOPSIS"]
for name, _ in commands:
    usage, _ = sections(ask("help", name))
    words = usage.split(" ", 2)
    page += [f"\\fB{roff(' '.join(words[:2]))}\\fR {roff(words[2]) if len(words) > 2 else ''}", ".br"]
page += [".SH DESCRIPTION", *paragraphs(top[""]), ".SH COMMANDS"]
for name, text in commands:
    _, parts = sections(ask("help", name))
    options, notes = parts["options"], []
    if "" in options:
        at = options.index("")
        options, notes = options[:at], options[at:]
    page += [f'.SS "hypura {name}"', *paragraphs(parts[""]), *listed(entries(options))]
    if any(line.strip() for line in notes):
        page += [".PP", *paragraphs(notes)]
page += [".SH ENVIRONMENT", *listed(entries(top["environment"])), ".SH EXIT STATUS",
         "0 success, 1 failure, 2 wrong usage.", ".SH SEE ALSO",
         "\\fIapi.md\\fR, \\fIcli.md\\fR and \\fIopenapi.yaml\\fR in the documentation folder, share/doc/hypura."]
print("\n".join(page))
