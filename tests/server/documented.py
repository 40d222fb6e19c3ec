#!/usr/bin/env python3
"""Every route of src/server/endpoint/routes.c is in docs/api.md, and every one that is not passed through is in docs/openapi.yaml with its
method; nothing else is there.

    documented.py REPOSITORY
"""
import re
import sys

root = sys.argv[1]


def read(path):
    with open(f"{root}/{path}", encoding="utf-8") as file:
        return file.read()


routes = re.findall(r'\{"([A-Z]+)", "([^"]+)", (\w+)', read("src/server/endpoint/routes.c"))
api, openapi = read("docs/api.md"), read("docs/openapi.yaml")
described, methods, anchors = set(), {}, {}
path = anchor = None
for line in openapi[openapi.index("\npaths:"):openapi.index("\ncomponents:")].splitlines():
    if found := re.match(r"  (/\S*?):(?: ([&*])(\w+))?$", line):
        path, mark, anchor = found.groups()
        methods[path] = anchors[anchor] if mark == "*" else set()
        if mark == "&":
            anchors[anchor] = methods[path]
    elif found := re.match(r"    (get|head|post|delete|put|patch):$", line):
        methods[path].add(found[1].upper())
described = {(method, re.sub(r"\{\w+\}$", "*", path)) for path in methods for method in methods[path]}

problems = []
if len(routes) < 40 or len(described) < 20:
    problems.append("the tables could not be read")
for method, path, handler in routes:
    word = path.rstrip("*").rstrip("/") or "`/`"
    if word not in api:
        problems.append(f"docs/api.md lacks {path}")
    own = handler != "endpoint_pass"
    # What HEAD answers follows from GET where there is one.
    if own and (method, path) not in described and not (method == "HEAD" and ("GET", path) in described):
        problems.append(f"docs/openapi.yaml lacks {method} {path}")
for method, path in sorted(described - {(m, p) for m, p, _ in routes}):
    problems.append(f"docs/openapi.yaml has {method} {path}, which is no route")
print("\n".join(problems))
sys.exit(1 if problems else 0)
