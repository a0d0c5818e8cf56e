"""Programs in forks, which the other tests start, end as they would by themselves."""

from __future__ import annotations

from drivers import Program

POOL = """
import builtins
from concurrent.futures import ThreadPoolExecutor

builtins.pool = ThreadPoolExecutor(2)  # held until the end, and never shut down
print(*builtins.pool.map(str, range(3)))
"""


def test_one_that_leaves_a_pool_of_threads_ends() -> None:
    program = Program.script(POOL)
    output, _ = program.communicate(timeout=60)
    assert output == "0 1 2\n"
    assert program.returncode == 0
