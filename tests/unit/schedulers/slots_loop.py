"""The event loop of the benchmarks, which these tests run schedulers in."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

_PATH = Path(__file__).parents[3] / "benchmarks" / "_slots.py"
_SPEC = importlib.util.spec_from_file_location("scvitune_benchmark_slots", _PATH)
_MODULE = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = _MODULE
_SPEC.loader.exec_module(_MODULE)

METRIC, Slots, Trial = _MODULE.METRIC, _MODULE.Slots, _MODULE.Trial
