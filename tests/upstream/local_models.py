"""A pytest plugin for llama.cpp's own server tests: every preset runs on models that are here, nothing is downloaded.

HYPURA_UPSTREAM_MODEL is a GGUF for all presets. A test that asserts what another model says fails then, through any server:
run.sh runs the tests through stock llama-server as well, and what fails there, too, says nothing about ours.
"""
import os
import shutil

import pytest
import utils

MODEL = os.environ["HYPURA_UPSTREAM_MODEL"]
_start = utils.ServerProcess.start


def start(self, timeout_seconds=60):
    if self.models_dir is None and self.models_preset is None and (self.model_hf_repo or self.model_file):
        # Each preset under its own name, as the answers carry it.
        name = self.model_alias or "model"
        os.makedirs("tmp", exist_ok=True)
        self.model_file = os.path.abspath(f"tmp/{name}.gguf")
        if not os.path.exists(self.model_file):
            os.symlink(MODEL, self.model_file)
        self.model_hf_repo = self.model_hf_file = self.model_url = None
    if self.model_draft or self.lora_files or self.mmproj_url:
        pytest.skip("needs a draft model, an adapter or a projector that is not here")
    if self.n_threads is None:
        self.n_threads = 2
    return _start(self, timeout_seconds)


utils.ServerProcess.start = start
utils.ServerPreset.load_all = staticmethod(lambda: None)


def no_download(url, output_file_path=None):
    pytest.skip("would download " + url)


utils.download_file = no_download
shutil.rmtree("tmp", ignore_errors=True)
