"""The list of folders and the sending of files on a real server: what comes, and that nothing else does."""

import io
import json
import socket
import threading
import time
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

STREAM = "application/octet-stream"
NOBODY = "0" * 20


def png(value=90, side=8):
    file = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


class Sending:
    """Files into a folder by plain HTTP."""

    def __init__(self, routes, name, *, files=3, size=10**6, add=False):
        self.routes = routes
        body = json.dumps({"name": name, "files": files, "bytes": size, "add": add}).encode()
        self.status, self.told = routes.post("/folders", body)
        self.id = self.told.get("id", NOBODY)

    def send(self, path, body=None, **headers):
        headers = {"Content-Type": STREAM, **headers}
        status, _, content = self.routes.ask(
            "POST",
            f"/folders/{self.id}/files?path={quote(path)}",
            body=png() if body is None else body,
            headers=headers,
        )
        return status, content


@pytest.fixture
def nowhere(folders):
    """The input folder, in which nothing is called `sent` yet."""
    folders.empty("sent").rmdir()
    return folders.input


def everything(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_folders_are_listed_as_the_widget_takes_them(routes, folders, comfy_client, graph):
    folders.picture(folders.make("early cats") / ".thumbs" / "x.png")
    time.sleep(0.1)
    newer = folders.make("newer cats", count=2)
    folders.mask(newer / "masks" / "cat 1.png")
    folders.picture(folders.input / "clipspace" / "scratch.png")
    folders.picture(folders.input / ".hidden" / "x.png")
    told = routes.get("/folders")
    names = [one["name"] for one in told["folders"]]
    assert told["complete"] and names.index("newer cats") < names.index("early cats")
    assert not {"clipspace", ".hidden", "newer cats/masks", "early cats/.thumbs", ""} & set(names)
    by_name = {one["name"]: one for one in told["folders"]}
    wanted = {"shown": "newer cats", "place": "input", "pictures": 2, "masks": 1}
    assert wanted.items() <= by_name["newer cats"].items()
    assert abs(by_name["newer cats"]["changed"] - time.time()) < 600
    loaded = graph.add("MLT_LoadDataset", folder="newer cats")
    report = graph.text([loaded, 4])
    (text,) = comfy_client.run(graph.nodes).outputs[report]["text"]
    assert text.startswith("2 pictures: 1 with a mask, 1 without.")


def test_what_lies_elsewhere_is_listed_by_a_name_that_loads_it(routes, folders, comfy_server, tmp_path):
    added, config = tmp_path / "my pictures", comfy_server.base / "user" / "masked_lora" / "allowed_folders.json"
    folders.picture(added / "cats" / "a.png")
    folders.picture(comfy_server.base / "output" / "saved set" / "b.png")
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps({"folders": [str(added)]}), encoding="utf-8")
    try:
        told = {one["shown"]: one for one in routes.get("/folders")["folders"]}
    finally:
        config.unlink()
    assert (told["cats"]["place"], told["cats"]["name"]) == ("added", str((added / "cats").resolve()))
    assert told["saved set"]["place"] == "output"
    assert told["saved set"]["name"].endswith("saved set")


def test_files_come_whole_with_their_masks_and_captions(routes, nowhere, comfy_client, graph):
    sending = Sending(routes, "sent", files=3)
    assert (sending.status, sending.told["name"]) == (200, "sent")
    assert not (nowhere / "sent").exists()
    large = np.random.default_rng(1).integers(0, 256, (900, 1200, 3)).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(large).save(file, "PNG")
    sending = Sending(routes, "sent", files=3, size=10**7)
    assert sending.send("ä cat.png", file.getvalue()) == (200, {"name": "ä cat.png"})
    grey = io.BytesIO()
    Image.fromarray(np.full((900, 1200), 255, np.uint8)).save(grey, "PNG")
    assert sending.send("masks/ä cat.png", grey.getvalue()) == (200, {"name": "masks/ä cat.png"})
    assert sending.send("ä cat.txt", "a cät".encode()) == (200, {"name": "ä cat.txt"})
    assert (nowhere / "sent" / "ä cat.png").read_bytes() == file.getvalue()
    assert everything(nowhere / "sent") == ["masks/ä cat.png", "ä cat.png", "ä cat.txt"]
    told = next(one for one in routes.get("/folders")["folders"] if one["name"] == "sent")
    assert (told["pictures"], told["masks"]) == (1, 1)
    loaded = graph.add("MLT_LoadDataset", folder="sent")
    captions = graph.text([loaded, 3])
    assert comfy_client.run(graph.nodes).outputs[captions]["text"] == ["a cät"]


@pytest.mark.parametrize(
    "path",
    [
        "../out.png", "..", "a/../../out.png", "/out.png", "//host/out.png", "C:/out.png", "a\\..\\out.png",
        "out\0.png", "",
        ".out.png", "nul.png", "out.exe", "out.svg", "out.png/", "x" * 300 + ".png", "a/" * 20 + "out.png", "out.png\n",
    ],
)  # fmt: skip
def test_hostile_names_are_refused_and_write_nothing(routes, nowhere, path):
    before = everything(nowhere.parent)
    sending = Sending(routes, "sent")
    status, told = sending.send(path)
    assert status == 422 and told["error"]
    assert everything(nowhere.parent) == before


@pytest.mark.parametrize("name", ["..", "../x", "/x", "C:/x", "a/../../x", "nul", ".git", "", "x\0", "a" * 300, "x."])
def test_hostile_folders_are_refused(routes, nowhere, name):
    sending = Sending(routes, name)
    assert sending.status == 422 and sending.told["error"].startswith("folder: ")


def test_a_link_in_the_input_folder_that_leads_out_is_refused(routes, nowhere, tmp_path):
    (nowhere / "sent").mkdir()
    try:
        (nowhere / "sent" / "masks").symlink_to(tmp_path, target_is_directory=True)
    except OSError:
        pytest.skip("links need rights on this system")
    sending = Sending(routes, "sent", add=True)
    status, told = sending.send("masks/a.png")
    assert status == 422 and "leads to" in told["error"]
    assert Sending(routes, "sent/masks").status == 422
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays_as_it_is(routes, folders):
    folder = folders.make("sent", count=1)
    before = (folder / "cat 1.png").read_bytes()
    refused = Sending(routes, "sent")
    assert refused.status == 409 and "is there already" in refused.told["error"]
    sending = Sending(routes, "sent", add=True)
    status, told = sending.send("cat 1.png")
    assert status == 409 and told["error"].startswith("cat 1.png: a file of this name")
    assert sending.send("cat 2.png")[0] == 200
    assert (folder / "cat 1.png").read_bytes() == before


def test_what_is_too_large_is_refused_before_it_comes(routes, nowhere):
    told = routes.get("/folders")
    # ComfyUI takes 100 MB unless it is told otherwise.
    assert told["takes"][".png"] == 100 << 20 and told["takes"][".txt"] < 10**6
    assert told["takes_names"] == {"metadata.jsonl": 64_000_000} and told["room"] > 0
    sending = Sending(routes, "sent", size=10**9, files=4)
    for path, size in (("a.png", (100 << 20) + 1), ("a.txt", 10**6)):
        status, _, answer = raw(routes, sending.id, path, size)
        assert status == 413 and "--max-upload-size" in json.loads(answer)["error"]
    assert Sending(routes, "sent", size=1 << 60).status == 507
    assert Sending(routes, "sent", files=10**6).status == 413
    small = Sending(routes, "sent", files=1, size=10)
    assert small.send("a.png")[0] == 413
    assert not (nowhere / "sent").exists()


def raw(routes, known, path, size, body=b"", *, extra=""):
    """An answer to a request whose body is shorter than it says."""
    with socket.create_connection(("127.0.0.1", routes.server.port), timeout=30) as connection:
        head = f"POST /api/masked_lora/folders/{known}/files?path={quote(path)} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        head += f"Content-Type: {STREAM}\r\nContent-Length: {size}\r\nConnection: close\r\n{extra}\r\n"
        connection.sendall(head.encode() + body)
        if body:
            return None
        # The server waits some seconds for the rest before it closes.
        answer = b""
        while not answer.endswith(b"}"):
            answer += connection.recv(65536)
    head, _, content = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), head, content


def test_a_file_of_which_a_part_comes_is_not_there_and_can_be_sent_again(routes, nowhere):
    whole = png(side=300)
    sending = Sending(routes, "sent", files=1, size=len(whole))
    raw(routes, sending.id, "a.png", len(whole), whole[: len(whole) // 2])
    routes.until(lambda: (nowhere / "sent").is_dir())
    routes.until(lambda: list((nowhere / "sent").iterdir()) == [])
    routes.until(lambda: sending.send("a.png", whole)[0] == 200)
    assert (nowhere / "sent" / "a.png").read_bytes() == whole


def test_what_only_looks_like_a_picture_is_refused(routes, nowhere):
    sending = Sending(routes, "sent")
    for body in (b"", b"<html><script>alert(1)</script>", png()[:40]):
        status, told = sending.send("a.png", body)
        assert status == 422 and told["error"].startswith("a.png")
    assert list((nowhere / "sent").iterdir()) == []


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content-Type": "image/png"}, 415),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "multipart/form-data; boundary=x"}, 415),
        ({"Content-Encoding": "deflate"}, 415),
        ({"Origin": "http://evil.example"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_other_forms_and_other_pages_are_refused(routes, nowhere, headers, status):
    sending = Sending(routes, "sent")
    assert sending.send("a.png", **headers)[0] == status
    assert not (nowhere / "sent").exists()


def test_a_folder_is_begun_by_the_page_itself_and_in_one_form_only(routes, nowhere):
    whole = {"name": "sent", "files": 1, "bytes": 1, "add": False}
    evil = routes.post("/folders", json.dumps(whole).encode(), Origin="http://evil.example")
    assert evil[0] == 403
    for change in ({"files": -1}, {"files": True}, {"bytes": "1"}, {"name": 5}, {"add": 1}, {"path": "/"}):
        assert routes.post("/folders", json.dumps(whole | change).encode())[0] == 400
    assert routes.post("/folders", b"[]")[0] == 400
    assert Sending(routes, "").send("a.png")[0] == 404
    status, _, _ = routes.ask("POST", "/folders/nobody/files?path=a.png", body=b"", headers={"Content-Type": STREAM})
    assert status == 400


def test_the_server_answers_others_while_it_looks(routes, folders):
    folder = folders.empty("many")
    for i in range(300):
        (folder / f"set {i}").mkdir()
        for j in range(60):
            (folder / f"set {i}" / f"{j}.jpg").touch()
    looking = threading.Thread(target=routes.get, args=("/folders",))
    looking.start()
    answers = 0
    while looking.is_alive():
        routes.ask("GET", "/queue", prefix="")
        answers += 1
    folders.empty("many")
    assert answers > 5
