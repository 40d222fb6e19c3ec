#!/usr/bin/env python3
"""Puts two JUnit reports side by side: compare.py STOCK.xml FRONT.xml, the second of the tests that passed in the first.

Prints a Markdown table by file, then every test that stock llama-server passes and the front does not, with the reason.
"""
import collections
import sys
import xml.etree.ElementTree as xml


def read(path):
    results = {}
    for case in xml.parse(path).iter("testcase"):
        name = (case.get("classname").split(".")[-1], case.get("name"))
        state, why = "passed", ""
        for child in case:
            if child.tag in ("failure", "error", "skipped"):
                state = "skipped" if child.tag == "skipped" else "failed"
                why = (child.get("message") or "").split("\n")[0]
                text = (child.text or "") + "".join(out.text or "" for out in case if out.tag.startswith("system"))
                if "not served:" in text:
                    why = text[text.index("not served:"):].split("\n")[0]
                elif "return code 64" in why:  # its words are in a file of the test
                    why = "not served: an option"
        results[name] = (state, why)
    return results


def main():
    stock, front = read(sys.argv[1]), read(sys.argv[2])
    table = collections.defaultdict(collections.Counter)
    differing = []
    for name, (state, _) in sorted(stock.items()):
        row = table[name[0]]
        row["all"] += 1
        if state != "passed":
            row["stock " + state] += 1
            continue
        ours, why = front.get(name, ("failed", "not run"))
        row["passed" if ours == "passed" else "not served" if "not served" in why else "failed"] += 1
        if ours != "passed":
            differing.append((name, why))
    total = collections.Counter()
    for row in table.values():
        total.update(row)
    columns = "all", "stock failed", "stock skipped", "passed", "not served", "failed"
    print("| file | tests | stock fails | stock skips | passed by both | option not served | failed |\n|---|---|---|---|---|---|---|")
    for file, row in [*sorted(table.items()), ("all", total)]:
        print(f"| {file} | {' | '.join(str(row[column]) for column in columns)} |")
    print()
    for (file, test), why in differing:
        print(f"- {file}::{test}: {why[:200]}")


if __name__ == "__main__":
    main()
