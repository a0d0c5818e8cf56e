"""scvi-tools' torch modules without the rest of scvi-tools.

A trial's process needs of scvi-tools two classes, ``VAE`` and ``LDVAE``, and the layers they are
made of: a few files that use torch and nothing else in earnest. Yet ``import scvi`` runs
everything: Lightning, Pyro, AnnData, scikit-learn. That costs 3.1 seconds of processor time and
295 MB in every trial's process, more than a short study trains. Here it is 0.1 s and 5 MB; another
1.0 s and 65 MB of what ``import scvi`` loads (``torch._dynamo``) come anyway, with the first
optimiser of torch. (scvi-tools 1.4.2, torch 2.13, Ray imported before.)

So these files are run here one by one, as modules under names of our own. What they import is
answered by `_Isolation.import_module`, which is their ``__import__`` (an import statement looks it
up in the builtins of its own module): scvi-tools' files come from here as well, packages without
their ``__init__``, Pyro as an empty shell (one of the files derives a class from it that no VAE
uses), all the rest as it is. ``sys.modules["scvi"]`` is never touched, so nobody else sees any of
this, and ``import scvi`` works as ever, before and after. The code is scvi-tools' own, byte for
byte, and so are the numbers.

Nothing depends on it: where anything fails (another layout in another version), `isolated_class`
returns None, and the caller imports scvi-tools in the ordinary way.
"""

from __future__ import annotations

import builtins
import importlib.util
import logging
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch

PREFIX = f"{__name__}."  # of our names of scvi-tools' modules

# Run as they are. Packages here bring all their files.
_PACKAGES = ("scvi.module.base", "scvi.nn")
_FILES = frozenset(
    {
        "scvi._constants",
        "scvi.data._constants",
        "scvi.module._constants",
        "scvi.module._vae",
        "scvi.utils._decorators",
        "scvi.utils._dependencies",
    }
)
# Packages whose __init__ is what costs; name in the package -> file that defines it.
_HOLLOW: dict[str, dict[str, str]] = {
    "scvi": {"REGISTRY_KEYS": "scvi._constants"},
    "scvi.data": {},
    "scvi.module": {},
    "scvi.utils": {
        "unsupported_if_adata_minified": "scvi.utils._decorators",
        "error_on_missing_dependencies": "scvi.utils._dependencies",
    },
}

_log = logging.getLogger(__name__)


class _NotIsolatedError(ImportError):
    """The files want a part of scvi-tools that is not loaded in isolation."""


class _Settings:
    """``scvi.settings``, which some methods read but not those that a trial calls."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        from scvi import settings

        return getattr(settings, name)


class _Shell(ModuleType):
    """A module in which every name is an empty class, enough to derive from."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _Isolation:
    """Loads scvi-tools' files under our names and answers their imports."""

    def __init__(self) -> None:
        self._modules: dict[str, ModuleType] = {}
        self._builtins = {**vars(builtins), "__import__": self.import_module}
        self._loading = True
        try:
            self.constants = self._load("scvi._constants")
            self.vae = self._load("scvi.module._vae")
            self._load("scvi.nn")
            self._probe()
        except BaseException:
            for name in self._modules:
                sys.modules.pop(PREFIX + name, None)
            raise
        self._loading = False

    def _probe(self) -> None:
        """Build one small module of each kind: what cannot work fails here, not in a trial."""
        sizes = {"n_input": 2, "n_batch": 2, "n_hidden": 2, "n_latent": 2}
        embedding = {"batch_representation": "embedding", "encode_covariates": True}
        with torch.random.fork_rng(devices=[]):
            self.vae.VAE(**sizes)
            self.vae.VAE(**sizes, **embedding)
            self.vae.LDVAE(**sizes, use_observed_lib_size=True)

    def import_module(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """Answer an import statement of the loaded files; the signature is ``__import__``'s."""
        if level:
            package = (globals or {})["__package__"]
            name = importlib.util.resolve_name("." * level + name, package).removeprefix(PREFIX)
        distribution = name.partition(".")[0]
        if distribution == "pyro" and self._loading:
            return _Shell(name)
        if distribution != "scvi":
            return builtins.__import__(name, globals, locals, fromlist or (), 0)
        try:
            if not fromlist:
                raise _NotIsolatedError(f"import {name}")
            module = self._load(name)
            for attribute in fromlist:
                if not hasattr(module, attribute):
                    self._load(f"{name}.{attribute}")
            return module
        except _NotIsolatedError:
            if self._loading:
                raise
            # A method that no trial calls wants more: it gets the whole of scvi-tools.
            return builtins.__import__(name, None, None, fromlist or (), 0)

    def _load(self, name: str) -> ModuleType:
        if name in self._modules:
            return self._modules[name]
        home, _, last = name.rpartition(".")
        parent = self._load(home) if home else None
        if name in self._modules:  # its package has loaded it meanwhile
            return self._modules[name]
        own = name in _FILES or any(name == p or name.startswith(f"{p}.") for p in _PACKAGES)
        if not own and name not in _HOLLOW:
            raise _NotIsolatedError(name)
        spec = self._find(name, parent)
        if name in _HOLLOW:
            spec.loader = None  # its __init__ is not run
        module = importlib.util.module_from_spec(spec)
        module.__dict__["__builtins__"] = self._builtins
        # Dataclasses look their module up there.
        sys.modules[PREFIX + name] = self._modules[name] = module
        if spec.loader is not None:
            spec.loader.exec_module(module)
        for attribute, file in _HOLLOW.get(name, {}).items():
            setattr(module, attribute, getattr(self._load(file), attribute))
        if name == "scvi":
            module.__dict__["settings"] = _Settings()
        if name == "scvi.utils":
            # Asked about JAX and Flax only, for classes of theirs. It would import them.
            module.__dict__["is_package_installed"] = lambda package: False
        if parent is not None:
            setattr(parent, last, module)
        return module

    def _find(self, name: str, parent: ModuleType | None) -> ModuleSpec:
        if parent is not None:
            spec = PathFinder.find_spec(PREFIX + name, list(parent.__path__))
        else:
            found = importlib.util.find_spec(name)  # of a top-level package: imports nothing
            places = found.submodule_search_locations if found else None
            spec = ModuleSpec(PREFIX + name, None, is_package=True)
            spec.submodule_search_locations = list(places or [])
        if spec is None:
            raise _NotIsolatedError(name)
        return spec


@cache
def _isolation() -> _Isolation | None:
    try:
        return _Isolation()
    except Exception as error:  # noqa: BLE001  whatever it is, the plain import is there
        _log.debug("scvi-tools is imported whole: %s: %s", type(error).__name__, error)
        return None


def isolated_class(name: str) -> Any:
    """Return a class of ``scvi.module._vae``, or None where that needs the whole of scvi-tools."""
    isolation = _isolation()
    return None if isolation is None else getattr(isolation.vae, name, None)


def isolated_registry_keys() -> Any:
    """Return ``scvi.REGISTRY_KEYS``, or None where that needs the whole of scvi-tools."""
    isolation = _isolation()
    return None if isolation is None else isolation.constants.REGISTRY_KEYS
