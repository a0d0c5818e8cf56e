"""Loaders of data that must be downloaded, with no network and with files put by hand."""

from __future__ import annotations

import urllib.error
import urllib.request

import numpy as np
import pytest

from scvitune.data import brain_large, cortex, pbmc
from scvitune.errors import InputError


@pytest.fixture
def no_network(monkeypatch):
    asked = []

    def refuse(request, *args, **kwargs):
        asked.append(request.full_url)
        raise urllib.error.URLError("Name or service not known")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    return asked


@pytest.mark.parametrize(
    ("loader", "files"),
    [
        (cortex, ["expression.bin"]),
        (pbmc, ["gene_info_pbmc.csv", "pbmc_metadata.pickle", "pbmc8k", "pbmc4k"]),
        (brain_large, ["brain_large.h5"]),
    ],
)
def test_without_a_network_the_error_says_what_to_do(no_network, tmp_path, loader, files):
    with pytest.raises(InputError) as error:
        loader(tmp_path / "downloads")
    text = str(error.value)
    assert "could not be downloaded" in text
    assert "Name or service not known" in text
    for name in files:
        assert str(tmp_path / "downloads" / name) in text
    # The address shown is the one that scvi-tools really asked for.
    assert len(set(no_network)) == 1  # scvi-tools 1.5 tries more than once
    assert no_network[0] in text


def test_only_what_lacks_is_asked_for(no_network, tmp_path):
    (tmp_path / "gene_info_pbmc.csv").write_text("ENSG\n")
    with pytest.raises(InputError) as error:
        pbmc(tmp_path)
    assert "gene_info_pbmc.csv" not in str(error.value)
    assert "pbmc_metadata.pickle" in str(error.value)


def test_a_file_put_by_hand_is_read(no_network, tmp_path):
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, size=(3, 5))
    lines = [["", f"row{i}", *["a", "a", "b", "b", "b"]] for i in range(11)]
    lines += [[f"gene{i}", "1", *map(str, row)] for i, row in enumerate(counts)]
    (tmp_path / "expression.bin").write_text("\n".join("\t".join(line) for line in lines))
    adata = cortex(tmp_path)
    assert np.array_equal(np.asarray(adata.X), counts.T)
    assert no_network == []


def test_a_file_cut_short_is_told(no_network, tmp_path):
    (tmp_path / "brain_large.h5").write_bytes(b"\x89HDF")
    with pytest.raises(InputError, match="could not be read.*Delete them"):
        brain_large(tmp_path)
