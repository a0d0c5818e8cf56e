"""One small Ray for all studies of these tests, and small cells."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

import pytest
from forked_workers import in_place_of_python, server_of_workers

from scvitune._ray_settings import NO_WORKERS_AHEAD

CLUSTERS = (
    *("test_slurm.py", "test_many_machines.py", "test_benchmarks_and_examples.py::test_scaling"),
    "test_packaging.py::test_batch_script",
)
"""Take turns: a node that starts sweeps away what another has left on the machine."""
SHARES_NOTHING = "test_benchmarks_and_examples.py"
"""Its tests need not run in one process: each starts what it needs."""
LONGEST_FIRST = (
    *("clusters", "test_disturbed.py", "test_repeating.py", "test_full_disk.py", "test_faults.py"),
    *("test_pairs.py", "test_confirming.py", "test_population.py", "test_destvi.py"),
    *("test_study.py", f"{SHARES_NOTHING}::test_against_autotune"),
    *(f"{SHARES_NOTHING}::test_time_to_solution", "test_scib.py", "test_readme.py"),
    *("test_destvi_faults.py", "test_fused_studies.py", "test_long_study.py"),
)
"""The other files follow, and at last the short tests that share nothing: so what runs beside each
other ends at about the same time, within the length of one of them."""


def group_of(nodeid):
    """Return the tests with which a test is kept: those of its file, whose studies it shares."""
    test = nodeid.rpartition("tests/end_to_end/")[2]
    if test.startswith(CLUSTERS):
        return "clusters"
    file = test.partition("::")[0]
    return nodeid if file == SHARES_NOTHING else file


def pytest_configure(config):
    """Set what all processes are to have, those of a Ray of the tests' own among them."""
    for name, value in NO_WORKERS_AHEAD.items():
        os.environ.setdefault(name, value)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Hand out groups in the order of the collection, where files are to be kept together."""
    from xdist.scheduler import LoadScopeScheduling

    class GroupScheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    if config.getvalue("dist") != "loadfile":
        return None
    config.option.loadscopereorder = False
    return GroupScheduling(config, log)


def pytest_collection_modifyitems(items):
    def place(item):
        if item.path.parent != Path(__file__).parent:
            return -1
        group = group_of(item.nodeid)
        if group != "clusters":
            group = group.rpartition("tests/end_to_end/")[2]
        if group in LONGEST_FIRST:
            return LONGEST_FIRST.index(group)
        return len(LONGEST_FIRST) + group.startswith(SHARES_NOTHING)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def own_signals():
    """A study of Ray Tune's own leaves its handlers behind, which swallow the next signal."""
    numbers = (signal.SIGINT, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def local_ray():
    """Two slots; studies use the Ray that is there and leave it running, its workers are forks."""
    import ray

    with tempfile.TemporaryDirectory() as folder:
        with in_place_of_python(Path(folder)):
            ray.init(
                address="local",  # not another's that runs on this machine
                num_cpus=2,
                num_gpus=0,
                include_dashboard=False,
                object_store_memory=80 * 1024**2,
                log_to_driver=False,
            )
        with server_of_workers(Path(folder)):
            yield Path(folder)
            ray.shutdown()


@pytest.fixture(scope="session")
def pbmc():
    """Real counts of 700 PBMCs, registered for SCVI."""
    import scvi

    import scvitune

    adata = scvitune.data.pbmc68k()
    scvi.model.SCVI.setup_anndata(adata, labels_key="cell_type")
    return adata


@pytest.fixture(scope="session")
def browser_programs():
    """Paths of Chromium and its driver; skips before anything dear is started."""
    found = shutil.which("chromium"), shutil.which("chromedriver")
    if None in found:
        pytest.skip("needs a browser: apt-get install chromium chromium-driver")
    return found


@pytest.fixture(scope="module")
def browser(browser_programs, tmp_path_factory):
    """A headless Chromium that keeps what its pages write to the console and what they fetch."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs the extra `test`")
    chromium, driver = browser_programs
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    profile = tmp_path_factory.mktemp("profile")
    for flag in (
        *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--no-first-run", f"--user-data-dir={profile}", "--window-size=1200,1600"),
    ):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options=options, service=service)
    yield found
    found.quit()


SMALL_SPACE = {
    "n_latent": {"type": "randint", "low": 5, "high": 20},
    "n_hidden": {"type": "choice", "values": [32, 64]},
    "lr": {"type": "loguniform", "low": 1e-4, "high": 1e-2},
    "gene_likelihood": {"type": "choice", "values": ["nb", "zinb"]},
    "dispersion": {
        "type": "choice",
        "values": ["gene", "gene-label"],
        "when": {"gene_likelihood": "zinb"},
    },
}


@pytest.fixture
def small_space():
    """A space with every kind of domain and a condition."""
    return dict(SMALL_SPACE)


@pytest.fixture(scope="session")
def wait_for():
    """Wait until a condition holds; fail with the process's output if it dies first."""

    def wait(condition, *, seconds=240.0, process=None):
        deadline = time.monotonic() + seconds
        while True:
            has_ended = process is not None and process.poll() is not None
            if condition():  # by what it did last, if it has ended
                return
            if has_ended:
                pytest.fail(f"the process ended early:\n{process.stdout.read()}")
            if time.monotonic() > deadline:
                if process is not None:
                    process.kill()  # or it would take its time from the tests that follow
                pytest.fail(f"nothing happened within {seconds:g} s")
            time.sleep(0.05)

    return wait
