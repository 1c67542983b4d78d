"""What tests of networks share."""

import urllib.error

import pytest
import torch


@pytest.fixture
def weights_folder(tmp_path, monkeypatch):
    """An empty DLAPPS_WEIGHTS, an empty cache of torch.hub, and no network."""

    def no_network(*_args, **_options):
        raise urllib.error.URLError("no network here")

    monkeypatch.setenv("DLAPPS_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path
