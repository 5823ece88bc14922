"""The archive that the registry would hold: small, whole, and all that a user needs."""

import re
import shutil
import subprocess
import zipfile

import pytest
from PIL import Image

from devtools.comfy import PACK_PARTS, ROOT, ComfyServer
from harness.page import ComfyPage
from harness.panel import Panel

MOST_BYTES = 6_000_000


def git(*arguments, given=b""):
    return subprocess.run(["git", *arguments], cwd=ROOT, input=given, capture_output=True, check=False).stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Tracked files but those that .comfyignore names, as the registry's tool packs them."""
    tracked = git("ls-files", "-z")
    if not tracked:
        pytest.skip("this is no clone")
    left_out = git("-c", "core.excludesFile=.comfyignore", "check-ignore", "--no-index", "--stdin", "-z", given=tracked)
    names = sorted(set(tracked.decode().split("\0")) - set(left_out.decode().split("\0")))
    path = tmp_path_factory.mktemp("archive") / "pack.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in filter(None, names):
            packed.write(ROOT / name, name)
    return path


def test_the_archive_is_small_and_holds_the_pack_and_nothing_of_its_making(archive):
    assert archive.stat().st_size <= MOST_BYTES
    with zipfile.ZipFile(archive) as packed:
        tops = {name.split("/")[0] for name in packed.namelist()}
    assert tops == {*PACK_PARTS, "README.md", "LICENSE", "requirements.txt", "CHANGELOG.md"}


def test_the_registry_finds_what_it_asks_for():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    told = dict(re.findall(r'^(\w+) = "(.+)"$', text, re.M))
    assert {"Repository", "Documentation", "Issues", "PublisherId", "DisplayName", "Icon", "Banner"} <= set(told)
    assert f"## {told['version']}" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    icon, banner = (Image.open(ROOT / "docs" / told[key].rsplit("/", 1)[1]) for key in ("Icon", "Banner"))
    assert icon.width == icon.height <= 400
    assert banner.width / banner.height == pytest.approx(21 / 9, abs=0.01)


def test_the_archive_in_an_empty_custom_nodes_trains_in_the_page(
    archive, browser, comfy_host, comfy_server, train_graph, tmp_path
):
    base = tmp_path / "a new ComfyUI"
    shutil.copytree(comfy_server.base / "input" / "train demo", base / "input" / "train demo")
    graph = train_graph(name="from the archive", steps=3)
    with ComfyServer(comfy_host, base, models=comfy_server.base / "models", archive=archive) as server:
        context = browser.new_context(viewport={"width": 1400, "height": 900})
        page = ComfyPage(context.new_page(), server).open()
        panel = Panel(page).load(graph)
        server.wait(panel.start(), timeout=120)
        panel.in_state("finished")
        assert page.problems == []
        context.close()
    assert (base / "output" / "loras" / "from the archive.safetensors").is_file()
