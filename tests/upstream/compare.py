#!/usr/bin/env python3
"""Puts two JUnit reports of the same tests side by side: compare.py STOCK.xml FRONT.xml

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
        results[name] = (state, why)
    return results


stock, front = read(sys.argv[1]), read(sys.argv[2])
table = collections.defaultdict(collections.Counter)
differing = []
for name, (state, why) in sorted(front.items()):
    row = table[name[0]]
    row["all"] += 1
    by_stock = stock.get(name, ("failed", "not run"))[0]
    if state == "passed":
        row["passed"] += 1
    elif by_stock == "passed":
        row["not served" if "not served" in why else "failed"] += 1
        differing.append((name, why))
    else:
        row["as stock"] += 1
print("| file | tests | passed | option not served | failed | stock fails or skips as well |\n|---|---|---|---|---|---|")
total = collections.Counter()
for file, row in sorted(table.items()):
    total.update(row)
    print(f"| {file} | {row['all']} | {row['passed']} | {row['not served']} | {row['failed']} | {row['as stock']} |")
print(f"| all | {total['all']} | {total['passed']} | {total['not served']} | {total['failed']} | {total['as stock']} |\n")
for (file, test), why in differing:
    print(f"- {file}::{test}: {why[:200]}")
for name in sorted(n for n in front if front[n][0] == "passed" and stock.get(n, ("",))[0] != "passed"):
    print(f"- passed here alone: {name[0]}::{name[1]}")
