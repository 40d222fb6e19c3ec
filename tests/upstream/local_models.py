"""A pytest plugin for llama.cpp's own server tests: every preset runs on models that are here, nothing is downloaded.

HYPURA_UPSTREAM_MODEL is a GGUF for all presets, HYPURA_UPSTREAM_DRAFT one of its vocabulary that guesses for it;
HYPURA_UPSTREAM_PROJECTOR, for those that take pictures, one with random weights. A test that asserts what another model says
fails then, through any server: run.sh runs the tests through stock llama-server as well, and what fails there, too, says
nothing about ours.
"""
import base64
import os
import shutil

import compare
import harness
import pytest
import requests
import utils

MODEL = os.environ["HYPURA_UPSTREAM_MODEL"]
PICTURES = {"11_truck.png": harness.picture(200), "91_cat.png": harness.picture(20)}
_start, _get = utils.ServerProcess.start, requests.get


def start(self, timeout_seconds=60):
    if self.models_dir is None and self.models_preset is None and (self.model_hf_repo or self.model_file):
        # Each preset under its own name, as the answers carry it.
        name = self.model_alias or "model"
        os.makedirs("tmp", exist_ok=True)
        self.model_file = os.path.abspath(f"tmp/{name}.gguf")
        if not os.path.exists(self.model_file):
            os.symlink(MODEL, self.model_file)
        self.model_hf_repo = self.model_hf_file = self.model_url = None
    if self.lora_files or self.mmproj_url:
        pytest.skip("needs an adapter or a projector that is not here")
    if self.n_threads is None:
        self.n_threads = 2
    os.environ.pop("LLAMA_ARG_MMPROJ", None)
    if self.model_alias == "tinygemma3" and not self.no_mmproj:
        os.environ["LLAMA_ARG_MMPROJ"] = os.environ["HYPURA_UPSTREAM_PROJECTOR"]
    return _start(self, timeout_seconds)


def get(url, *args, **options):
    name = url.rsplit("/", 1)[-1]
    if not url.startswith("https://") or name not in PICTURES:
        return _get(url, *args, **options)
    answer = requests.Response()
    answer.status_code, answer._content = 200, base64.b64decode(PICTURES[name])
    return answer


def pytest_collection_modifyitems(items):
    """What stock llama-server does not pass is not asked of the front."""
    if "HYPURA_UPSTREAM_STOCK" in os.environ:
        results = compare.read(os.environ["HYPURA_UPSTREAM_STOCK"])
        items[:] = [item for item in items
                    if results.get((item.module.__name__.split(".")[-1], item.name), ("failed", ""))[0] == "passed"]


utils.ServerProcess.start = start
utils.ServerPreset.load_all = staticmethod(lambda: None)
requests.get = get


def download(url, output_file_path=None):
    if url.endswith("/stories15M-q4_0.gguf"): # the one that drafts
        return os.environ["HYPURA_UPSTREAM_DRAFT"]
    pytest.skip("would download " + url)


utils.download_file = download
shutil.rmtree("tmp", ignore_errors=True)
