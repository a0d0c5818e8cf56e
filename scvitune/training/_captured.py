"""Steps recorded once and replayed: for small models most of a step is telling a GPU its kernels.

A step is some two hundred kernels, each told by Python; a CUDA graph tells them all in one call. A
recording reads and writes the memory that it was made with, so whatever changes from step to step
(cells, KL weights, learning rates) is copied to fixed places first.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from scvitune.training._noise import GeneratorNoise
from scvitune.training._step import TrainingStep

_WARM_UP = 3
"""Steps that run as ever before one is recorded: libraries and the optimiser allocate in them."""


class Recorder(Protocol):
    """Records what a function has the device do, and has it done again."""

    def warm_up(self, run: Callable[[], None]) -> None:
        """Run once as ever, where a recording is to be made later."""

    def capture(self, run: Callable[[], None]) -> None:
        """Record, without anything being done yet."""

    def replay(self) -> None:
        """Do what was recorded."""


class GraphRecorder:
    """A CUDA graph.

    Parameters
    ----------
    noises
        Whose generators go on from replay to replay as they would from step to step.
    """

    def __init__(self, device: torch.device, *noises: GeneratorNoise) -> None:
        self._stream = torch.cuda.Stream(device)
        self._graph = torch.cuda.CUDAGraph()
        self._noises = noises

    def warm_up(self, run: Callable[[], None]) -> None:
        """Run on the stream that will record: what autograd keeps belongs to its stream."""
        self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        with torch.cuda.stream(self._stream):
            run()
        torch.cuda.current_stream(self._stream.device).wait_stream(self._stream)

    def capture(self, run: Callable[[], None]) -> None:
        """Record; where it fails, the generators are as they were before."""
        before = [noise.state() for noise in self._noises]
        stream = torch.cuda.current_stream(self._stream.device)
        for noise in self._noises:
            self._graph.register_generator_state(noise.generator)
        try:
            # Other threads of the process (Ray's) are none of this recording's business.
            with torch.cuda.graph(
                self._graph, stream=self._stream, capture_error_mode="thread_local"
            ):
                run()
        except Exception:
            torch.cuda.set_stream(stream)  # which torch leaves where ending the recording fails
            for noise, state in zip(self._noises, before, strict=True):
                noise.renew(state)  # the old one may wait for the recording's end for ever
            raise

    def replay(self) -> None:
        """Launch the graph."""
        self._graph.replay()


class Recording:
    """A function that runs as ever a few times, is then recorded, and replayed from then on.

    Where recording fails, that is said once and it runs as ever each time.

    Parameters
    ----------
    run
        It does the same to the same memory each time.
    recorder
        Used once.
    """

    def __init__(self, run: Callable[[], None], recorder: Recorder) -> None:
        self._run = run
        self._recorder: Recorder | None = recorder
        self._warm, self._captured = 0, False

    def __call__(self) -> None:
        """Do what the function does."""
        if self._recorder is None:
            self._run()
        elif self._warm < _WARM_UP:
            self._warm += 1
            self._recorder.warm_up(self._run)
        elif self._captured or self._capture(self._recorder):
            self._recorder.replay()
        else:
            self._run()

    def _capture(self, recorder: Recorder) -> bool:
        try:
            recorder.capture(self._run)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._recorder = None
            first = (str(error) or repr(error)).splitlines()[0]
            warnings.warn(
                f"Training steps could not be recorded as a CUDA graph ({first}); they run "
                "one by one, more slowly.",
                stacklevel=2,
            )
            return False
        self._captured = True
        return True


class CapturedStep:
    """A `TrainingStep` that is recorded for minibatches of one size.

    Parameters
    ----------
    step
        What to record.
    recorder
        Used once.
    batch_size
        Of the minibatches that are recorded; others run as ever.
    device
        Of the step.
    """

    def __init__(
        self, step: TrainingStep, recorder: Recorder, *, batch_size: int, device: torch.device
    ) -> None:
        self._step, self._batch_size = step, batch_size
        self._recording = Recording(self._run, recorder)
        self._cells = torch.zeros(batch_size, dtype=torch.int64, device=device)
        self._kl_weight = torch.zeros((), device=device)
        step.optimizer.keep_lr_on_device()

    def __call__(self, cells: Tensor, kl_weight: float) -> None:
        """Train on cells, (n,) int64."""
        if len(cells) != self._batch_size:
            self._step(cells, kl_weight)
            return
        self._cells.copy_(cells)
        self._kl_weight.fill_(kl_weight)
        self._recording()

    def _run(self) -> None:
        self._step(self._cells, self._kl_weight)
