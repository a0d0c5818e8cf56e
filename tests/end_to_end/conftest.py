"""One small Ray for all studies of these tests, and small cells."""

from __future__ import annotations

import shutil
import time

import pytest


@pytest.fixture(scope="session")
def local_ray():
    """Two slots; studies use the Ray that is there and leave it running."""
    import ray

    ray.init(
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        object_store_memory=80 * 1024**2,
        log_to_driver=False,
    )
    yield
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

    def wait(condition, *, seconds=120.0, process=None):
        deadline = time.monotonic() + seconds
        while not condition():
            if process is not None and process.poll() is not None:
                pytest.fail(f"the process ended early:\n{process.stdout.read()}")
            if time.monotonic() > deadline:
                pytest.fail(f"nothing happened within {seconds:g} s")
            time.sleep(0.05)

    return wait
