"""The LoRA file of a run in a real ComfyUI: it is this run's, whatever happened to the names since."""

import os
import stat
import sys

import pytest
from safetensors import safe_open
from safetensors.torch import load

from devtools.comfy import ComfyError
from harness.toy import same


def load_file(path):
    # Not mapped into memory: these files are cut short.
    return load(path.read_bytes())


def said(run, node="4"):
    return [one["text"] for one in run.outputs[node]["masked_lora_report"]]


def cached(run):
    """The nodes that ComfyUI did not run again."""
    told = [data for name, data in run.record["status"]["messages"] if name == "execution_cached"]
    return told[0]["nodes"]


@pytest.fixture
def loras(comfy_server):
    folder = comfy_server.base / "output" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def again(comfy_client):
    """Queues a graph so that ComfyUI has nothing of it in its cache."""

    def run(prompt):
        picture = {"width": 8, "height": 8, "batch_size": 1, "color": 0}
        other = {"1": {"class_type": "EmptyImage", "inputs": picture}}
        comfy_client.run(other | {"2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})
        return comfy_client.run(prompt)

    return run


def test_another_run_s_file_under_the_name_is_not_taken_for_this_one_s(again, loras, train_graph):
    first = train_graph(name="swapped", steps=2, learning_rate=1e-4)
    again(first)
    mine = load_file(loras / "swapped.safetensors")
    (loras / "swapped.safetensors").unlink()
    again(train_graph(name="swapped", steps=2, learning_rate=5e-3))
    first["9"] = {"class_type": "PreviewAny", "inputs": {"source": ["4", 4]}}
    back = again(first)
    assert "Loaded the finished run" in "\n".join(said(back))
    path = loras / "swapped_00001_.safetensors"
    assert back.outputs["9"]["text"] == [str(path)]
    assert "swapped.safetensors is another file and stays" in said(back)[-2]
    assert said(back)[-1] == f"Written: {path}"
    assert same(load_file(path), mine)
    with safe_open(path, "np") as file:
        assert file.metadata()["ss_learning_rate"] == "0.0001"
    assert said(again(first))[-1].startswith(f"It is already there: {path}")
    assert len(list(loras.glob("swapped*"))) == 2


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(bytes(content))


def cut(path):
    path.write_bytes(path.read_bytes()[:-40])


def renamed(path):
    path.rename(path.with_name("moved away.safetensors"))


@pytest.mark.parametrize("harm", [emptied, flipped, cut, renamed, os.unlink], ids=lambda one: one.__name__)
def test_a_file_that_is_gone_or_damaged_is_written_again_also_for_comfyui_s_cache(
    comfy_client, loras, train_graph, harm
):
    name = f"harmed {harm.__name__}"
    prompt, path = train_graph(name=name, steps=2), loras / f"{name}.safetensors"
    comfy_client.run(prompt)
    mine = load_file(path)
    harm(path)
    run = comfy_client.run(prompt)
    written = path if harm in (renamed, os.unlink) else loras / f"{name}_00001_.safetensors"
    assert said(run)[-1].startswith(f"Written: {written}")
    assert same(load_file(written), mine)
    # And no oftener than that.
    assert "4" in cached(comfy_client.run(prompt))
    assert len(list(loras.glob(f"{name}*"))) == (1 if harm in (renamed, os.unlink) else 2)


def test_an_exported_file_that_is_gone_is_written_again(comfy_client, loras, train_graph):
    prompt = train_graph(name="to export", steps=2)
    inputs = {"lora": ["4", 0], "name": "exported twice", "format": "comfyui", "dtype": "float32"}
    prompt["8"] = {"class_type": "MLT_ExportLoRA", "inputs": inputs}
    comfy_client.run(prompt)
    (loras / "exported twice.safetensors").unlink()
    run = comfy_client.run(prompt)
    assert said(run, "8") == [f"Written: {loras / 'exported twice.safetensors'}"]
    assert load_file(loras / "exported twice.safetensors")


@pytest.mark.parametrize("other", ["x_y_z", "x/y_z", "x y z"])
def test_two_names_for_one_run_are_two_files(again, loras, train_graph, other):
    again(train_graph(name="x/y z", steps=2, seed=77))
    run = again(train_graph(name=other, steps=2, seed=77))
    path = loras / f"{other}.safetensors"
    assert said(run)[-1].endswith(str(path))
    assert "Loaded the finished run" in "\n".join(said(run))
    assert same(load_file(path), load_file(loras / "x" / "y z.safetensors"))


@pytest.mark.parametrize("longer", ["n" * 90 + " one", "名" * 60])
def test_a_rename_costs_nothing_and_writes_the_asked_file(again, loras, routes, train_graph, longer):
    # Of the same first 80 letters as the first name of the run, or of none.
    first = again(train_graph(name="n" * 90 + " two", steps=3, seed=len(longer)))
    run = again(train_graph(name=longer, steps=3, seed=len(longer)))
    assert "Trained 3 steps" in "\n".join(said(first)) and "Loaded the finished run" in "\n".join(said(run))
    assert (loras / f"{longer}.safetensors").is_file()
    (listed,) = [one for one in routes.get("/runs")["runs"] if one["written"].endswith(f"/{longer}.safetensors")]
    assert (listed["taken"], listed["name"][:50]) == (None, longer[:50])


@pytest.mark.skipif(sys.platform == "win32", reason="has no modes")
def test_files_are_as_readable_as_the_umask_lets_them_be(again, comfy_server, loras, train_graph):
    again(train_graph(name="modes", steps=2))
    (folder,) = (comfy_server.base / "user" / "masked_lora" / "runs").glob("modes-*")
    plain = stat.S_IMODE((folder / "settings.json").stat().st_mode)
    assert plain & 0o044 == 0o044
    files = [loras / "modes.safetensors", *folder.rglob("*.safetensors")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {plain}
    assert len(files) == 3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("l" * 260, "expected at most 236"),
        ("影" * 120, "360 bytes"),
        ("f" * 300 + "/x", "expected at most 255"),
        ("what?", "'?'"),
        ("a*b", "'*'"),
        ('"x"', "cannot hold"),
        ("two\nlines", "cannot hold"),
        ("my/CON", "Windows keeps for a device"),
        ("nul.v2", "Windows keeps for a device"),
        ("com1", "Windows keeps for a device"),
        ("evil.", "Windows drops"),
        ("folder./x", "Windows drops"),
        ("\udcff", "cannot hold"),
    ],
)
def test_a_name_that_cannot_be_written_is_told_before_the_first_step(
    comfy_client, comfy_server, train_graph, name, words
):
    run = comfy_client.run(train_graph(name=name, steps=5000), check=False)
    assert run.error.startswith("name: ") and words in run.error, run.error
    assert comfy_client.run(train_graph(name="after it", steps=2)).succeeded


def test_a_file_in_the_way_of_a_folder_is_told_before_the_first_step(comfy_client, loras, train_graph):
    (loras / "blocks").write_bytes(b"a file")
    run = comfy_client.run(train_graph(name="blocks/x", steps=5000), check=False)
    assert "blocks is a file" in run.error


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="needs a user that a mode can stop")
def test_a_folder_that_takes_no_files_is_told_before_the_first_step(comfy_client, loras, train_graph):
    (loras / "closed").mkdir()
    (loras / "closed").chmod(0o500)
    run = comfy_client.run(train_graph(name="closed/x", steps=5000), check=False)
    assert "could not be written" in run.error


@pytest.mark.parametrize("name", ["c" * 240, "what?", "../away"])
def test_an_export_s_name_is_refused_when_the_graph_is_queued(comfy_client, train_graph, name):
    prompt = {"1": train_graph()["1"]}
    inputs = {"lora": ["1", 0], "name": name, "format": "comfyui", "dtype": "float32"}
    prompt["2"] = {"class_type": "MLT_ExportLoRA", "inputs": inputs}
    with pytest.raises(ComfyError, match="name: "):
        comfy_client.submit(prompt)


def test_parts_of_layers_that_are_none_are_refused_when_the_graph_is_queued_or_their_node_executes(
    comfy_client, defaults, train_graph
):
    prompt = train_graph(name="no such parts", steps=5000)
    prompt["4"]["inputs"]["adapter"] = ["6", 0]
    prompt["6"] = {"class_type": "MLT_Adapter", "inputs": defaults("MLT_Adapter", rank_by_layer="blocks 3-1: 4")}
    with pytest.raises(ComfyError, match='rank_by_layer: "blocks 3-1: 4" ends before it begins'):
        comfy_client.submit(prompt)
    # A text that comes by a link is not known before.
    prompt["7"] = {"class_type": "PrimitiveString", "inputs": {"value": "attn: 0"}}
    prompt["6"]["inputs"]["rank_by_layer"] = ["7", 0]
    run = comfy_client.run(prompt, check=False)
    assert run.error.startswith('rank_by_layer: "attn: 0" asks for 0, expected 1 to 1024')
    (failed,) = [data["node_id"] for kind, data in run.record["status"]["messages"] if kind == "execution_error"]
    assert failed == "6"
    exported = {"lora": ["1", 0], "name": "strong", "format": "comfyui", "dtype": "float32", "block_strengths": "a b"}
    export = {"1": prompt["1"], "2": {"class_type": "MLT_ExportLoRA", "inputs": exported}}
    with pytest.raises(ComfyError, match='block_strengths: "a b" is no part such as'):
        comfy_client.submit(export)


@pytest.mark.usefixtures("forgotten_graphs")
@pytest.mark.parametrize("widget", ["learning_rate", "guidance", "regularisation_weight", "validation_share"])
def test_a_number_that_is_none_is_refused_by_its_widget(comfy_client, train_graph, widget):
    # It passes ComfyUI's own look at the range.
    run = comfy_client.run(train_graph(**{"name": "no number", "steps": 5000, widget: float("nan")}), check=False)
    assert run.error.startswith(f"{widget}: expected a number, got nan")
