#!/usr/bin/env python3
"""Stands where llama.cpp's server tests expect llama-server, and starts `hypura serve`.

Options that hypura serve has are translated, or become what lies beside a model: parameters, a template, a projector. What it
decides itself is left out: sizes of batches, and templates, which are always Jinja. Any other option is not part of this server:
exit code 64, and "not served" on standard error.
"""
import json
import os
import shutil
import sys

SERVE = {"--port": "--port", "--host": "--host", "--threads": "--threads", "--api-key": "--api-key"}
SPECULATION = {"--model-draft": "--draft", "--spec-type": "--spec-type", "--spec-draft-n-max": "--draft-max",
               "--spec-draft-p-min": "--draft-p-min"}
# What hypura serve does anyway, decides itself, or has its own way of.
IGNORED = {"--offline", "--cont-batching", "--metrics", "--slots", "--no-slots", "--embedding", "--no-ui", "--kv-unified",
           "--jinja", "--no-jinja", "--no-mmproj", "--reranking"}
# Shorter drafts than --spec-draft-n-min are not asked for: they change no answer.
IGNORED_WITH_VALUE = {"--alias", "--batch-size", "--ubatch-size", "-fa", "--n-gpu-layers", "--spec-draft-n-min"}
# The model's own parameters, as Ollama calls them.
PARAMETERS = {"--seed": ("seed", int), "--temp": ("temperature", float), "--n-predict": ("num_predict", int)}
# What is as the front has it anyway.
SAME = {("--pooling", "last"), ("--reasoning", "auto"), ("--reasoning-format", "auto")}


def refuse(what):
    print("not served:", what, file=sys.stderr)
    sys.exit(64)


argv = sys.argv[1:]
words = [os.environ["HYPURA"], "serve", "--no-ollama", "--drain", "2"]
context = slots = 0
model = None
origins = "*"  # stock's default
settings = {}
speculation = {}
while argv:
    option = argv.pop(0)
    if option in SERVE:
        words += [SERVE[option], argv.pop(0)]
    elif option in IGNORED:
        pass
    elif option == "--context-shift":
        words += [option]
    elif option in PARAMETERS:
        key, kind = PARAMETERS[option]
        settings.setdefault("parameters", {})[key] = kind(argv.pop(0))
    elif option in IGNORED_WITH_VALUE or (argv and (option, argv[0]) in SAME):
        argv.pop(0)
    elif option in SPECULATION:
        speculation[SPECULATION[option]] = argv.pop(0)
    elif option == "--model":
        model = argv.pop(0)
    elif option == "--ctx-size":
        context = int(argv.pop(0))
    elif option == "--parallel":
        slots = int(argv.pop(0))
    elif option == "--cors-origins":
        origins = argv.pop(0)
    elif option == "--chat-template-file":
        with open(argv.pop(0)) as file:
            settings["template"] = file.read()
    elif argv and option in ("--pooling", "--reasoning", "--reasoning-format"):
        refuse(f"{option} {argv[0]}")
    else:
        refuse(option)
if "AIP_MODE" in os.environ:
    refuse("AIP_MODE")
# A folder of models with this one in it: links that lead out of such a folder are not followed.
name = os.path.splitext(os.path.basename(model))[0] if model else None
folder = os.path.abspath("tmp/front")
shutil.rmtree(folder, ignore_errors=True)
os.makedirs(folder)


def put(path, target):
    try:
        os.link(os.path.realpath(path), os.path.join(folder, target))
    except OSError:
        shutil.copy(path, os.path.join(folder, target))


if model:
    put(model, name + ".gguf")
if model and "LLAMA_ARG_MMPROJ" in os.environ:
    put(os.environ["LLAMA_ARG_MMPROJ"], name + ".mmproj.gguf")
if settings and model:  # a server without one has nothing that they are of
    with open(os.path.join(folder, name + ".json"), "w") as file:
        json.dump({"settings": settings}, file)
if origins != "localhost":  # our default
    words += ["--origins", origins]
if "--draft" in speculation or "--spec-type" in speculation:  # else they have nothing that they are of
    words += [word for pair in speculation.items() for word in pair]
slots = slots or 4
# Their context is shared by the slots, ours is each one's.
if context:
    words += ["--context", str(context // slots)]
# llama-server takes any name for its one model.
# A server of theirs begins without what another one computed.
words += ["--state-limit", "0", "--parallel", str(slots), "--models", folder] + (["--default", name] if name else [])
words += os.environ.get("HYPURA_UPSTREAM_OPTIONS", "").split()
os.execv(words[0], words)
