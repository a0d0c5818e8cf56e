"""Tree-structured Parzen estimators, by hyperopt."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hyperopt import JOB_STATE_DONE, STATUS_OK, Domain, Trials, hp, tpe

from scvitune.contracts import Choice, Config, Hyperparameter, IntRange, SearchSpace, Value
from scvitune.contracts import Domain as SpaceDomain
from scvitune.searchers._base import SearchProblem
from scvitune.searchers._memory import Memory, sampler_seed
from scvitune.spaces import resolve_constants

# The best gamma * sqrt(n) of n trials count as good: 8 of 60, near the 15 % of the paper; with
# hyperopt's own 0.25, 2 of 60, it is slow in a narrow valley. Of a tree of branches few may count
# as good, or those of the branch that it knows best outnumber the first ones of a better branch.
GAMMA = 1.0
GAMMA_OF_BRANCHES = 0.25
_ATTEMPTS = 5
# A proposal takes time in proportion to the trials that it is conditioned on: 14 ms at first, 60
# at 700, half a second at 10,000. Of many the best and the latest are enough.
_MOST, _KEPT, _BEST = 350, 300, 50


class TPEProposer:
    """TPE (Bergstra et al., NeurIPS 2011) over hyperopt's trials object.

    The first fifth of the proposals, between 5 and 20, are random. It is conditioned on at most
    350 trials: of more, on the best and the latest. Conditional hyperparameters become branches of
    hyperopt's tree, so they are modelled only from trials that have them.
    """

    def __init__(self, problem: SearchProblem) -> None:
        self._problem = problem
        self._domains = {h.name: h.domain for h in problem.space.hyperparameters}
        self._domain = Domain(lambda config: config, _tree(problem.space))
        self._trials = Trials()
        self._tid_of: dict[int, int] = {}
        self._memory = Memory(problem, "tpe", explores=True)
        has_branches = any(h.when for h in problem.space.hyperparameters)
        self._gamma = GAMMA_OF_BRANCHES if has_branches else GAMMA
        self._n_random = min(20, max(5, problem.num_samples // 5))

    @property
    def drawn(self) -> str:
        """How the latest proposal was drawn."""
        return self._memory.drawn

    def propose(self, number: int) -> Config | None:
        """Ask hyperopt for a configuration, and again while it is a known one."""
        tid = self._new_tid()
        chosen = self._memory.choose(
            number,
            lambda rng: self._ask(tid, rng),
            attempts=_ATTEMPTS,
            # hyperopt counts those that run, too; of them alone nothing is learnt.
            knows_enough=bool(self._memory.told) and len(self._trials.trials) >= self._n_random,
        )
        self._insert(self._document(tid, chosen))
        self._tid_of[number] = tid
        return chosen

    def _ask(self, tid: int, rng: np.random.Generator) -> Config:
        (document,) = tpe.suggest(
            [tid],
            self._domain,
            self._trials,
            sampler_seed(rng),
            n_startup_jobs=self._n_random,
            gamma=self._gamma,
            verbose=False,
        )
        raw = {name: values[0] for name, values in document["misc"]["vals"].items() if len(values)}
        given = {name: _decode(self._domains[name], value) for name, value in raw.items()}
        return resolve_constants(self._problem.space, given)

    def tell(self, config: Config, value: float, number: int | None = None) -> None:
        """Enter the value into hyperopt's trials, as a new trial if it was not proposed here."""
        self._memory.tell(config, (value,), number)
        tid = self._tid_of.pop(number, None) if number is not None else None
        if tid is None:
            tid = self._new_tid()
            self._insert(self._document(tid, config))
        document = next(d for d in self._trials._dynamic_trials if d["tid"] == tid)
        document["state"] = JOB_STATE_DONE
        loss = value if self._problem.mode == "min" else -value
        document["result"] = {"loss": loss, "status": STATUS_OK}
        self._forget()
        self._trials.refresh()

    def _forget(self) -> None:
        """Leave out answered trials once there are many; `Memory` still knows them."""
        documents = self._trials._dynamic_trials
        answered = [d for d in documents if d["state"] == JOB_STATE_DONE]
        if len(answered) <= _MOST:
            return
        best = sorted(answered, key=lambda d: d["result"]["loss"])[:_BEST]
        latest = [d for d in answered if d not in best][_BEST - _KEPT :]
        kept = {d["tid"] for d in (*best, *latest)}
        self._trials._dynamic_trials = [
            d for d in documents if d["state"] != JOB_STATE_DONE or d["tid"] in kept
        ]

    def _new_tid(self) -> int:
        (tid,) = self._trials.new_trial_ids(1)
        self._trials.refresh()
        return int(tid)

    def _insert(self, document: dict[str, Any]) -> None:
        self._trials.insert_trial_docs([document])
        self._trials.refresh()

    def _document(self, tid: int, config: Config) -> dict[str, Any]:
        active = {
            name: _encode(domain, config[name])
            for name, domain in self._domains.items()
            if name in config
        }
        misc = {
            "tid": tid,
            "cmd": self._domain.cmd,
            "workdir": self._domain.workdir,
            "idxs": {name: [tid] if name in active else [] for name in self._domain.params},
            "vals": {
                name: [active[name]] if name in active else [] for name in self._domain.params
            },
        }
        (document,) = self._trials.new_trial_docs([tid], [None], [{"status": "new"}], [misc])
        return dict(document)


def _tree(space: SearchSpace) -> dict[str, Any]:
    """Build hyperopt's expression; a conditional one lies in a branch of its parent's choice."""
    children: dict[str, list[Hyperparameter]] = {}
    choices = {h.name for h in space.hyperparameters if isinstance(h.domain, Choice)}
    for hyperparameter in space.hyperparameters:
        # A second condition, or one on an integer, which has no branches in hyperopt, is applied
        # when the proposal is resolved.
        parent = next((name for name in hyperparameter.when if name in choices), "")
        children.setdefault(parent, []).append(hyperparameter)

    nodes: dict[str, Any] = {}

    def node(hyperparameter: Hyperparameter) -> Any:
        name, domain = hyperparameter.name, hyperparameter.domain
        if name not in nodes:
            below = children.get(name, [])
            if below and isinstance(domain, Choice):
                nodes[name] = hp.choice(
                    name,
                    [
                        {c.name: node(c) for c in below if value in c.when[name]} | {"": i}
                        for i, value in enumerate(domain.values)
                    ],
                )
            else:
                nodes[name] = _expression(name, domain)
        return nodes[name]

    return {hyperparameter.name: node(hyperparameter) for hyperparameter in children.get("", [])}


def _expression(name: str, domain: SpaceDomain) -> Any:
    if isinstance(domain, Choice):
        if domain.ordered:
            return hp.uniformint(name, 0, len(domain.values) - 1)
        return hp.choice(name, list(range(len(domain.values))))
    if isinstance(domain, IntRange):
        step = domain.quantum or 1
        if domain.log:
            low, high = math.log(domain.low - 0.5 * step + 1e-9), math.log(domain.high - 0.5)
            return hp.qloguniform(name, low, high, step)
        return hp.quniform(
            name, domain.low - 0.5 * step + 1e-9, domain.high - 1 + 0.5 * step, step
        )
    if domain.log:
        low, high = math.log(domain.low), math.log(domain.high)
        if domain.quantum is not None:
            return hp.qloguniform(name, low, high, domain.quantum)
        return hp.loguniform(name, low, high)
    if domain.quantum is not None:
        return hp.quniform(name, domain.low, domain.high, domain.quantum)
    return hp.uniform(name, domain.low, domain.high)


def _decode(domain: SpaceDomain, raw: Any) -> Value:
    """Turn hyperopt's number into the hyperparameter's value, inside its bounds."""
    if isinstance(domain, Choice):
        return domain.values[min(max(int(round(raw)), 0), len(domain.values) - 1)]
    if isinstance(domain, IntRange):
        step = domain.quantum or 1
        return int(min(max(round(float(raw) / step) * step, domain.low), domain.high - 1))
    value = float(np.clip(float(raw), domain.low, domain.high))
    return float(f"{value:.12g}") if domain.quantum is not None else value


def _encode(domain: SpaceDomain, value: Any) -> int | float:
    code: int | float = domain.values.index(value) if isinstance(domain, Choice) else value
    return code
