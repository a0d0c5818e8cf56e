"""Importing the package costs nothing heavy, and every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import scvitune.data


def test_importing_loads_no_heavy_package():
    code = (
        "import sys, scvitune.data as d\n"
        "heavy = {'torch', 'scvi', 'scanpy', 'anndata', 'pandas', 'scipy', 'ray', 'h5py'}\n"
        "print(sorted(heavy & set(sys.modules)), 'tune' in dir(d))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"


def test_every_public_name_is_there():
    for name in scvitune.data.__all__:
        assert getattr(scvitune.data, name) is not None
    assert sorted(scvitune.data.__all__) == sorted(dir(scvitune.data))
    with pytest.raises(AttributeError, match="no attribute 'prepare'"):
        _ = scvitune.data.prepare
