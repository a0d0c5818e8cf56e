"""The figure that plots are drawn in: plotly's, which says what this package needs for images."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import plotly.graph_objects as go

from scvitune.errors import InputError


class Figure(go.Figure):
    """A plotly figure whose images need the extra ``figures``, and which says so.

    Plotly itself names kaleido alone, whichever version, and says nothing of the ways without it.
    """

    def to_image(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the figure as an image; see `plotly.io.to_image`.

        Raises
        ------
        InputError
            If the extra ``figures`` is not installed.
        """
        _require_kaleido()
        image: bytes = super().to_image(*args, **kwargs)
        return image

    def write_image(self, *args: Any, **kwargs: Any) -> None:
        """Save the figure as PDF, SVG or PNG, by the ending; see `plotly.io.write_image`.

        Raises
        ------
        InputError
            If the extra ``figures`` is not installed.
        """
        _require_kaleido()
        super().write_image(*args, **kwargs)


def _require_kaleido() -> None:
    if find_spec("kaleido") is None:
        raise InputError(
            "Images of figures need kaleido. Install: pip install 'scvitune[figures]'. Without "
            'it, figure.write_html("figure.html") saves a page, whose camera button saves SVG, '
            "as that in report.html does."
        )
