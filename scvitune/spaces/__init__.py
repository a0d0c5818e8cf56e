"""Search spaces: what a user may write, each model's default, and Ray's domains.

Importing this costs neither Ray nor torch.
"""

from __future__ import annotations

from collections.abc import Callable

from scvitune.contracts import SearchSpace
from scvitune.errors import InputError, nearest, one_of
from scvitune.spaces._conditions import is_active
from scvitune.spaces._condscvi import default_condscvi_space
from scvitune.spaces._declaring import Declared, conditional, mutable, ordered, structural
from scvitune.spaces._destvi import default_destvi_space
from scvitune.spaces._drawing import contains, resolve_constants, sample_config
from scvitune.spaces._parsing import parse_space
from scvitune.spaces._ray_domains import to_ray_domain
from scvitune.spaces._scvi import default_linear_scvi_space, default_scvi_space
from scvitune.spaces._values import same
from scvitune.spaces._yaml_form import space_to_yaml

__all__ = [
    "DEFAULT_SPACES",
    "Declared",
    "conditional",
    "contains",
    "default_space",
    "is_active",
    "mutable",
    "ordered",
    "parse_space",
    "resolve_constants",
    "same",
    "sample_config",
    "space_to_yaml",
    "structural",
    "to_ray_domain",
]

DEFAULT_SPACES: dict[str, Callable[[], SearchSpace]] = {
    "SCVI": default_scvi_space,
    "LinearSCVI": default_linear_scvi_space,
    "CondSCVI": default_condscvi_space,
    "DestVI": default_destvi_space,
}
"""Model -> what builds its default space."""


def default_space(model: str) -> SearchSpace:
    """Return the default search space of a model.

    Parameters
    ----------
    model
        Name of a scvi-tools model.

    Raises
    ------
    scvitune.errors.InputError
        If there is no default space for it.
    """
    if model not in DEFAULT_SPACES:
        raise InputError(
            f"There is no default search space for the model {model!r}."
            f"{nearest(model, DEFAULT_SPACES)} There is one for {one_of(DEFAULT_SPACES)}; for "
            "other models give `space`."
        )
    return DEFAULT_SPACES[model]()
