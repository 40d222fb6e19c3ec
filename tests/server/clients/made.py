"""Models that tests make: tiny ones, with another template, of another architecture, with a projector; and pictures for them.

    made.py MKMODEL FOLDER      writes words.gguf and moe-words.gguf, which all tests share

Both say words of a small vocabulary, the same ones whatever their weights are paged like, and end when they are told to: for
all that is not about what a model says. They are loaded in a tenth of the time that SmolLM takes; and as weights of this type
have one layout alone, the processor is not measured for them.
"""
import base64
import math
import os
import random
import struct
import subprocess
import sys
import zlib

# Messages as SmolLM2 knows them, with calls of tools written as Qwen's models learned them: its own template leaves them out.
# Of the tools it has the names alone: a model this small goes on with the calls that it sees, and long prompts take their time.
TEMPLATE = """{%- if tools %}<|im_start|>system
Tools:{% for tool in tools %} {{ tool.function.name }}{% endfor %}<|im_end|>
{% endif %}{%- for message in messages %}{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}{% for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% endif %}{%- endfor %}{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def rewritten(source, target, change, more=()):
    """Copies a GGUF with other keys: change(name, value) gives both anew, the value as it is packed; more: entries added."""
    sizes = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
    with open(source, "rb") as file:
        data = file.read()
    at = 24

    def text():
        nonlocal at
        (n,) = struct.unpack_from("<Q", data, at)
        at += 8 + n
        return data[at - n : at]

    def skip(kind):
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            element, n = struct.unpack_from("<IQ", data, at)
            at += 12
            if element == 8:
                for _ in range(n):
                    text()
            else:
                at += n * sizes[element]
        else:
            at += sizes[kind]

    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    head = data[:16] + struct.pack("<Q", n_keys + len(more))
    for _ in range(n_keys):
        key = text().decode()
        (kind,) = struct.unpack_from("<I", data, at)
        at += 4
        value = at
        skip(kind)
        name, packed = change(key, data[value:at])
        head += packed_text(name) + struct.pack("<I", kind) + packed
    head += b"".join(more)
    tensors = at
    for _ in range(n_tensors):
        text()
        (n_dims,) = struct.unpack_from("<I", data, at)
        at += 4 + 8 * n_dims + 4 + 8
    head += data[tensors:at]
    with open(target, "wb") as file:
        file.write(head + bytes(-len(head) % 32))
        file.write(data[at + -at % 32 :])


def packed_text(value):
    return struct.pack("<Q", len(value.encode())) + value.encode()


def with_template(source, target, template):
    """Copies a GGUF with another chat template."""
    rewritten(source, target, lambda key, value: (key, packed_text(template) if key == "tokenizer.chat_template" else value))


WORDS_WIDTH = 256
WORDS_TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"


def write_words(mkmodel, folder):
    os.makedirs(folder, exist_ok=True)
    bare, dense, mixture = (os.path.join(folder, name + ".gguf") for name in ("bare", "words", "moe-words"))
    subprocess.run([mkmodel, "shape", "llama-tiny", bare, "--words", "--type", "f16"], check=True)
    rewritten(bare, dense, lambda key, value: (key, value),
              [packed_text("tokenizer.chat_template") + struct.pack("<I", 8) + packed_text(WORDS_TEMPLATE)])
    subprocess.run([mkmodel, "upcycle", dense, mixture, "--experts", "6", "--top-k", "2"], check=True)
    os.unlink(bare)


def as_qwen2vl(source, target):
    """Copies a llama model as one of an architecture whose positions have several dimensions; it says something else then."""
    sections = packed_text("qwen2vl.rope.dimension_sections") + struct.pack("<IIQ4i", 9, 5, 4, 8, 12, 12, 0)

    def change(key, value):
        if key == "general.architecture":
            value = packed_text("qwen2vl")
        return key.replace("llama.", "qwen2vl.", 1) if key.startswith("llama.") else key, value

    rewritten(source, target, change, [sections])


def write_projector(path, n_embd):
    """A projector of images with random weights: two layers, four tokens an image, for models of that width."""
    width, patch, image, layers, rng = 16, 14, 28, 2, random.Random(1)

    text = packed_text

    def key(name, kind, value):
        packed = {4: lambda: struct.pack("<I", value), 6: lambda: struct.pack("<f", value), 7: lambda: struct.pack("<?", value),
                  8: lambda: text(value), 9: lambda: struct.pack("<IQ3f", 6, 3, *value)}[kind]()
        return text(name) + struct.pack("<I", kind) + packed

    keys = [key("general.architecture", 8, "clip"), key("clip.has_vision_encoder", 7, True), key("clip.projector_type", 8, "mlp"),
            key("clip.use_gelu", 7, True), key("clip.vision.image_mean", 9, (0.5,) * 3), key("clip.vision.image_std", 9, (0.5,) * 3),
            key("clip.vision.attention.layer_norm_epsilon", 6, 1e-5)]
    for name, value in (("image_size", image), ("patch_size", patch), ("embedding_length", width), ("feed_forward_length", width),
                        ("block_count", layers), ("attention.head_count", 2), ("projection_dim", n_embd)):
        keys.append(key("clip.vision." + name, 4, value))
    shapes = {"v.patch_embd.weight": (patch, patch, 3, width), "v.position_embd.weight": (width, (image // patch) ** 2),
              "mm.0.weight": (width, n_embd), "mm.0.bias": (n_embd,), "mm.2.weight": (n_embd, n_embd), "mm.2.bias": (n_embd,)}
    for layer in range(layers):
        for name in "attn_q", "attn_k", "attn_v", "attn_out", "ffn_up", "ffn_down":
            shapes[f"v.blk.{layer}.{name}.weight"] = (width, width)
            shapes[f"v.blk.{layer}.{name}.bias"] = (width,)
        for name in "ln1", "ln2":
            shapes[f"v.blk.{layer}.{name}.weight"] = shapes[f"v.blk.{layer}.{name}.bias"] = (width,)
    tensors, data = b"", b""
    for name, shape in shapes.items():
        tensors += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(data))
        n = math.prod(shape)
        data += struct.pack(f"<{n}f", *(rng.uniform(-0.1, 0.1) for _ in range(n)))
        data += bytes(-len(data) % 32)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(keys)) + b"".join(keys) + tensors
    with open(path, "wb") as file:
        file.write(head + bytes(-len(head) % 32) + data)


def picture(red):
    """A PNG of 28 x 28 points of one colour, in base64."""
    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    rows = (b"\0" + bytes((red, 60, 120)) * 28) * 28
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 28, 28, 8, 2, 0, 0, 0)) +
                            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")).decode()


if __name__ == "__main__":
    write_words(*sys.argv[1:])
