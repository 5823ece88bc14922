"""Makes the pack importable as ComfyUI would import it, and a real ComfyUI usable in the tests.

The repository root never enters `sys.path`: its `nodes` would hide ComfyUI's module of that name. The root is
registered as the package `masked_lora_pack` instead, and `masklora`, `devtools`, `demo`, `benchmarks` and
`harness` are other names for the very same modules below it: a class exists once however it is imported.
"""

import atexit
import ctypes
import gc
import importlib
import importlib.abc
import importlib.util
import os
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "masked_lora_pack"
MUCH_MEMORY, MOST_MEMORY = 400 * 2**20, 2500 * 2**20
ALIASES = {
    "masklora": f"{PACKAGE}.masklora",
    "devtools": f"{PACKAGE}.devtools",
    "demo": f"{PACKAGE}.demo",
    "benchmarks": f"{PACKAGE}.benchmarks",
    "harness": f"{PACKAGE}.tests.harness",
}


class AliasLoader(importlib.abc.Loader):
    """Hands out the module that already exists under its real name."""

    def __init__(self, real):
        self.real = real

    def create_module(self, spec):
        module = importlib.import_module(self.real)
        self.spec = module.__spec__
        return module

    def exec_module(self, module):
        # The import system has just replaced it; relative imports of the module read it.
        module.__spec__ = self.spec


class AliasFinder(importlib.abc.MetaPathFinder):
    """Resolves `masklora.x` to the module object of `masked_lora_pack.masklora.x`."""

    def find_spec(self, fullname, path=None, target=None):
        head, dot, rest = fullname.partition(".")
        if head not in ALIASES:
            return None
        real = ALIASES[head] + dot + rest
        try:
            known = importlib.util.find_spec(real)
        except ModuleNotFoundError:
            known = None
        return importlib.util.spec_from_loader(fullname, AliasLoader(real)) if known else None


def register_pack():
    """Registers the repository root as a package under a name of its own."""
    spec = importlib.util.spec_from_file_location(PACKAGE, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    module = importlib.util.module_from_spec(spec)
    sys.modules[PACKAGE] = module
    spec.loader.exec_module(module)
    sys.meta_path.insert(0, AliasFinder())


def prepare_comfyui(path):
    """Puts ComfyUI on the path, its own folders in a temporary one, on the CPU where there is no CUDA."""
    sys.path.insert(0, str(path))
    import comfy.cli_args
    import torch

    scratch = Path(tempfile.mkdtemp(prefix="masked-lora-tests-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    comfy.cli_args.args.base_directory = str(scratch)
    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    for name in ("input", "output", "temp", "user", "models", "custom_nodes"):
        (scratch / name).mkdir()
    return scratch


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A job in a shell's background ignores Ctrl-C, and so would every process that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    # So does one under nohup the end of its terminal.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
register_pack()
COMFYUI = os.environ.get("COMFYUI_PATH")
SCRATCH = prepare_comfyui(Path(COMFYUI).resolve()) if COMFYUI else None


def pytest_collection_modifyitems(config, items):
    """A session with the newest web frontend runs the tests that look at a page, and no others.

    These are given a second try, which the summary tells: on a busy machine a browser stands still now and then.
    """
    from harness.frontends import OWN, SHOWN

    for item in items:
        if "browser" in item.fixturenames:
            item.add_marker(pytest.mark.flaky(reruns=1))
    others = [item for item in items if "browser" not in item.fixturenames] if SHOWN != OWN else []
    if others:
        items[:] = [item for item in items if "browser" in item.fixturenames]
        config.hook.pytest_deselected(items=others)


@pytest.fixture(scope="session")
def said():
    """Hears what the pack says in this process."""
    from harness.said import Said
    from masklora.errors import MaskLoraError
    from masklora.findings import Finding

    heard = Said()
    heard.listen(MaskLoraError)
    heard.listen(Finding)
    return heard


@pytest.fixture(autouse=True)
def known_sentences(said):
    """After each test: whatever was said is in the catalogue that the page translates by."""
    said.new.clear()
    yield
    assert said.unknown() == [], "locales/en/server.json lacks this: devtools/server_messages.py does not find it"


def resident_bytes():
    """The main memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def forget_models():
    """Let go of the small models that were made once for all tests; who needs one makes it again."""
    for name in ("models", "text_encoders", "vaes", "diffusers_models"):
        module = sys.modules.get(f"{PACKAGE}.tests.harness.{name}")
        for one in vars(module or object).values():
            if hasattr(one, "cache_clear"):
                one.cache_clear()


@pytest.fixture(scope="session")
def memory_held():
    """What this process held after it last gave back what it could."""
    return [resident_bytes() if sys.platform == "linux" else 0]


@pytest.fixture(scope="module", autouse=True)
def memory_given_back(memory_held):
    """After each module: glibc keeps what small models leave free, and Python what refers to itself, gigabytes each."""
    yield
    if sys.platform != "linux":
        return
    # Looking for it takes a second, so it is done where much has come.
    grown = resident_bytes() > memory_held[0] + MUCH_MEMORY
    if grown:
        gc.collect()
    if resident_bytes() > MOST_MEMORY:
        forget_models()
        gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
    if grown:
        memory_held[0] = resident_bytes()


@pytest.fixture
def one_thread():
    """One thread for torch: what is small is faster by it, and the same to the bit wherever it runs."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def host_with():
    """A function: the interpreter and ComfyUI folder that the tests run in, with the page of a frontend."""
    from devtools.console import DevError
    from devtools.frontend import VERSION, newest_frontend
    from devtools.host import Host
    from harness.frontends import OWN

    if not COMFYUI:
        pytest.fail("this test needs ComfyUI: run `python dev.py test`, or set COMFYUI_PATH")
    python = Path(sys.executable)

    def made(frontend):
        try:
            folder = None if frontend == OWN else newest_frontend(python)
        except DevError as error:
            pytest.skip(f"the web frontend {VERSION} cannot be had: {error}")
        return Host(python, Path(COMFYUI).resolve(), "tests", folder)

    return made


@pytest.fixture(scope="session")
def comfy_host(host_with):
    """The interpreter and ComfyUI folder that the tests run in, with the frontend of this session."""
    from harness.frontends import SHOWN

    return host_with(SHOWN)


@pytest.fixture(scope="session")
def comfy_server(comfy_host, tmp_path_factory):
    """A real ComfyUI process with the pack in it, in a folder whose name holds spaces and an umlaut."""
    from devtools.comfy import ComfyServer

    base = tmp_path_factory.mktemp("server") / "Übung mit Masken"
    os.environ["MASKLORA_TESTS"] = str(ROOT / "tests")
    with ComfyServer(comfy_host, base, packs=[ROOT / "tests" / "harness" / "small_models_pack"]) as server:
        if (ROOT / "nodes" / "__init__.py").is_file():
            ours = [name for name in server.object_info() if name.startswith("MLT_")]
            assert ours, f"ComfyUI started without the pack's nodes:\n{server.log_tail(200)}"
        yield server


@pytest.fixture(scope="session")
def newest_server(host_with, tmp_path_factory):
    """A real ComfyUI that shows the newest web frontend, whichever this session shows."""
    from devtools.comfy import ComfyServer
    from harness.frontends import NEWEST

    with ComfyServer(host_with(NEWEST), tmp_path_factory.mktemp("newest")) as server:
        yield server


@pytest.fixture(scope="session")
def server_with(request, comfy_server):
    """A function: a real ComfyUI that shows the page of a frontend, see `harness.frontends.cases`."""
    from harness.frontends import SHOWN

    return lambda frontend: comfy_server if frontend == SHOWN else request.getfixturevalue("newest_server")


@pytest.fixture(scope="session")
def demo_server(comfy_server):
    """`comfy_server` with the demo's checkpoint and pictures in its folders."""
    from devtools.demo import offer_demo_inputs

    offer_demo_inputs(comfy_server.host, comfy_server.base)
    return comfy_server


@pytest.fixture
def comfy_client(comfy_server):
    """Runs graphs in API form on `comfy_server` and hears its events."""
    from harness.server import ComfyClient

    client = ComfyClient(comfy_server)
    yield client
    client.close()


@pytest.fixture(scope="session")
def browser():
    """A headless Chromium."""
    from playwright.sync_api import sync_playwright

    from harness.page import FLAGS, find_browser

    executable = find_browser()
    if executable is None:
        pytest.fail("this test needs Chromium, Chrome or Edge; MASKLORA_BROWSER may give its path")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, headless=True, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def browser_context(browser):
    """One browser profile, so that the page's many files are fetched once; it remembers no workflow."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.add_init_script("localStorage.clear(); sessionStorage.clear();")
    yield context
    context.close()


@pytest.fixture
def page(browser_context, comfy_server):
    """The real ComfyUI page, open and ready, as a `ComfyPage`."""
    from harness.page import ComfyPage

    tab = browser_context.new_page()
    yield ComfyPage(tab, comfy_server).open()
    tab.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Tells with a failure in the page what the page showed and what the server said."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.when == "call" and report.failed and page is not None:
        report.sections.append(("the page", page.condition()))
        report.sections.append(("ComfyUI", page.server.log_tail()))
    return report
