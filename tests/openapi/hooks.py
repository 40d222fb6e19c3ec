"""Makes what schemathesis invents reach the server's own logic: most requests name a model that is there, and ask for few tokens.
What is removed is a copy. The invented values themselves stay in every other case."""
import random

import schemathesis

MODELS = ["qwen3-tiny", "llama-tiny:latest", "llama-tiny.gguf"]
SPARE = "copies/one"
source = random.Random(1)


@schemathesis.hook
def map_body(context, body):
    if not isinstance(body, dict):
        return body
    path = context.operation.path if context.operation else ""
    if path == "/api/delete":
        body["model"] = SPARE if source.random() < 0.5 else "of/" + str(body.get("model"))
    elif path == "/api/copy":
        body["destination"] = SPARE if source.random() < 0.5 else body.get("destination")
        body["source"] = source.choice(MODELS) if source.random() < 0.8 else body.get("source")
    elif path in ("/api/pull", "/api/create"):
        body["model"] = "user/name" if source.random() < 0.5 else body.get("model")
        if path == "/api/create" and source.random() < 0.5:
            body["from"] = source.choice(MODELS)
    elif "model" in body and source.random() < 0.8:
        body["model"] = source.choice(MODELS)
    if path in ("/api/chat", "/api/generate"):
        options = body.get("options")
        body["options"] = dict(options if isinstance(options, dict) else {}, num_predict=8)
        if source.random() < 0.7:
            body.pop("format", None)
            body.pop("tools", None)
    return body
