#!/usr/bin/env python3
"""Stands where llama.cpp's server tests expect llama-server, and starts `hypura serve`.

Options that hypura serve has are translated. What it decides itself is left out: defaults of sampling, which a request can
give, and templates, which are always Jinja. Any other option is not part of this server: exit code 64, and "not served" on
standard error.
"""
import os
import sys

SERVE = {"--port": "--port", "--host": "--host", "--threads": "--threads", "--api-key": "--api-key"}
# What hypura serve does anyway, decides itself, or has its own way of.
IGNORED = {"--offline", "--cont-batching", "--metrics", "--slots", "--no-slots", "--embedding", "--no-ui", "--kv-unified",
           "--jinja", "--no-jinja"}
IGNORED_WITH_VALUE = {"--alias", "--seed", "--temp", "--n-predict", "--batch-size", "--ubatch-size", "-fa",
                      "--n-gpu-layers"}

argv = sys.argv[1:]
words = [os.environ["HYPURA"], "serve", "--no-ollama", "--drain", "2"]
context = slots = 0
model = None
while argv:
    option = argv.pop(0)
    if option in SERVE:
        words += [SERVE[option], argv.pop(0)]
    elif option in IGNORED:
        pass
    elif option in IGNORED_WITH_VALUE:
        argv.pop(0)
    elif option == "--model":
        model = argv.pop(0)
    elif option == "--ctx-size":
        context = int(argv.pop(0))
    elif option == "--parallel":
        slots = int(argv.pop(0))
    else:
        print("not served:", option, file=sys.stderr)
        sys.exit(64)
if model is None:
    print("not served: a server without a model", file=sys.stderr)
    sys.exit(64)
slots = slots or 4
# Their context is shared by the slots, ours is each one's.
if context:
    words += ["--context", str(context // slots)]
words += ["--parallel", str(slots), "--models", os.path.join(os.path.dirname(model), "none"), model]
words += os.environ.get("HYPURA_UPSTREAM_OPTIONS", "").split()
os.execv(words[0], words)
