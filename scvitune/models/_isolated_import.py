"""scvi-tools' torch modules without the rest of scvi-tools.

A trial's process needs of scvi-tools one class, ``VAE``, ``LDVAE`` or ``VAEC``, and the layers it
is made of: a few files that use torch and nothing else in earnest. Yet ``import scvi`` runs
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
returns None for the class that it concerns, and the caller imports scvi-tools in the ordinary way.
"""

from __future__ import annotations

import builtins
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch

PREFIX = f"{__name__}."  # of our names of scvi-tools' modules

# Class -> its file, and arguments with which a small one of each kind is built.
_CLASSES: dict[str, tuple[str, tuple[dict[str, Any], ...]]] = {
    "VAE": (
        "scvi.module._vae",
        ({}, {"batch_representation": "embedding", "encode_covariates": True}),
    ),
    "LDVAE": ("scvi.module._vae", ({"use_observed_lib_size": True},)),
    # Made of what VAEC is made of, and built from a trained one, so not tried out.
    "MRDeconv": ("scvi.module._mrdeconv", ()),
    "VAEC": ("scvi.module._vaec", ({"n_labels": 2, "prior": "mog", "encode_covariates": True},)),
}
_SMALL = {"n_input": 2, "n_batch": 2, "n_hidden": 2, "n_latent": 2}

# Run as they are. Packages here bring all their files.
_PACKAGES = ("scvi.module.base", "scvi.nn")
_FILES = frozenset(
    {
        "scvi._constants",
        "scvi.data._constants",
        "scvi.distributions._constraints",
        "scvi.distributions._negative_binomial",
        "scvi.module._classifier",
        "scvi.module._constants",
        "scvi.module._mrdeconv",
        "scvi.module._vae",
        "scvi.module._vaec",
        "scvi.utils._decorators",
        "scvi.utils._dependencies",
    }
)
# Packages whose __init__ is what costs; name in the package -> file that defines it.
_HOLLOW: dict[str, dict[str, str]] = {
    "scvi": {"REGISTRY_KEYS": "scvi._constants"},
    "scvi.data": {},
    "scvi.distributions": {"NegativeBinomial": "scvi.distributions._negative_binomial"},
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
        self._loading = False

    def find_class(self, name: str) -> Any:
        """Return a class of `_CLASSES`."""
        file, kinds = _CLASSES[name]
        with self._loading_files():
            found = getattr(self._load(file), name)
            self._load("scvi.nn")  # which VAE imports once it is built
            self._probe(found, kinds)
        return found

    def find_registry_keys(self) -> Any:
        """Return ``scvi.REGISTRY_KEYS``."""
        with self._loading_files():
            return self._load("scvi._constants").REGISTRY_KEYS

    @contextmanager
    def _loading_files(self) -> Iterator[None]:
        """Answer all imports in the block from here; where it fails, nothing of it stays."""
        before = set(self._modules)
        self._loading = True
        try:
            yield
        except BaseException:
            for name in self._modules.keys() - before:
                sys.modules.pop(PREFIX + name, None)
                del self._modules[name]
            raise
        finally:
            self._loading = False

    def _probe(self, module_class: Any, kinds: tuple[dict[str, Any], ...]) -> None:
        """Build one small module of each kind: what cannot work fails here, not in a trial."""
        with torch.random.fork_rng(devices=[]):
            for kind in kinds:
                module_class(**_SMALL, **kind)

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
        if distribution == "jax" and self._loading:
            raise ImportError("no class that is wanted here uses JAX")
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


_ISOLATION = _Isolation()


@cache
def isolated_class(name: str) -> Any:
    """Return a class of ``scvi.module``, or None where that needs the whole of scvi-tools."""
    return _try(lambda: _ISOLATION.find_class(name))


@cache
def isolated_registry_keys() -> Any:
    """Return ``scvi.REGISTRY_KEYS``, or None where that needs the whole of scvi-tools."""
    return _try(_ISOLATION.find_registry_keys)


def _try(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except Exception as error:  # noqa: BLE001  whatever it is, the plain import is there
        _log.debug("scvi-tools is imported whole: %s: %s", type(error).__name__, error)
        return None
