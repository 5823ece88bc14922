"""The routes of the data set browser on a real server: what they tell, and what they refuse."""

import dataclasses
import http.client
import io
import json
import time

import numpy as np
import pytest
from PIL import Image

from masklora.settings import MaskTransform

PREFIX = "/masked_lora/datasets"
NOBODY = "0123456789abcdef0123"
OFF = dataclasses.asdict(MaskTransform())


class Routes:
    """Asks the server below `PREFIX`, with nothing but what a test gives."""

    def __init__(self, server):
        self.server = server

    def ask(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        connection.request(method, PREFIX + path, body=body, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()

    def get(self, path):
        status, headers, body = self.ask("GET", path)
        assert status == 200, body
        assert headers["X-Content-Type-Options"] == "nosniff"
        return json.loads(body)

    def picture(self, path):
        status, headers, body = self.ask("GET", path)
        assert status == 200, body
        assert headers["X-Content-Type-Options"] == "nosniff"
        return np.asarray(Image.open(io.BytesIO(body)))

    def look(self, dataset, content, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = {"Content-Type": "application/json"} | headers
        status, _, answer = self.ask("POST", f"/{dataset}/look", body, headers)
        return status, json.loads(answer or b"{}")


@pytest.fixture
def routes(comfy_server):
    return Routes(comfy_server)


@pytest.fixture
def opened(comfy_client, folders, graph):
    """The id of a data set of three pictures, of which the third has no mask, and its folder."""
    folder = folders.make("opened", size=(96, 64))
    folders.mask(folder / "cat 1_mask.png", rows=0.5)
    folders.mask(folder / "cat 2_mask.png", rows=0)
    loaded = graph.add("MLT_LoadDataset", folder="opened")
    shown = graph.add("MLT_InspectDataset", dataset=[loaded, 0], resolution=64)
    run = comfy_client.run(graph.nodes)
    return run.outputs[shown]["masked_lora_dataset"][0], folder


def test_the_page_learns_what_there_is_without_any_path(routes, opened):
    dataset, folder = opened
    facts, columns = routes.get(f"/{dataset}"), routes.get(f"/{dataset}/pictures")
    assert (facts["count"], facts["measured"], facts["cached"], facts["stride"]) == (3, 3, False, 8)
    assert columns["name"] == ["cat 1.png", "cat 2.png", "cat 3.png"]
    assert columns["has_mask"] == [True, True, False]
    # Of 53 rows the crop keeps 48, from the third on; the first 26.5 are white.
    assert columns["coverage"] == [0.5104, 0, 1]
    assert columns["warnings"][1] == ["all_black"]
    assert columns["caption"][0] == "a cät, number 1"
    told = json.dumps([facts, columns, routes.get(f"/{dataset}/pictures/0")])
    assert str(folder.parent) not in told and "opened" not in told


def test_a_picture_comes_in_every_view(routes, opened):
    dataset, _ = opened
    base = f"/{dataset}/pictures/0"
    assert routes.picture(f"{base}/image").shape == (64, 96, 3)
    learned = routes.picture(f"{base}/learned")
    assert (learned[:32] == 255).all() and (learned[32:] == 0).all()
    assert (routes.picture(f"/{dataset}/pictures/2/learned") == 255).all()
    overlaid = routes.picture(f"{base}/thumbnail?view=overlay&side=96&colour=00ff00&opacity=100").astype(int)
    assert np.abs(overlaid[8, 48] - 40).max() <= 4
    assert np.abs(overlaid[56, 48] - [0, 255, 0]).max() <= 12
    # Without a colour the tint is the one that the page is told of.
    tints = routes.get(f"{base}/tint")
    ignored = np.frombuffer(bytes.fromhex(tints["ignored"][1:]), np.uint8)
    automatic = routes.picture(f"{base}/thumbnail?view=overlay&side=96&opacity=100").astype(int)
    assert np.abs(automatic[56, 48] - ignored).max() <= 12
    assert set(tints) == set(routes.get(f"{base}/tint?mask=file")) == {"ignored", "learned"}
    for view in ("mask", "cut-out", "latent%20grid", "picture"):
        assert max(routes.picture(f"{base}/thumbnail?view={view}&side=128").shape) == 128


def test_the_weights_of_a_picture_are_told_row_by_row(routes, opened):
    dataset, _ = opened
    detail = routes.get(f"/{dataset}/pictures/0")
    weights = np.reshape(detail["weights"], detail["grid"])
    assert [8 * side for side in detail["grid"][::-1]] == detail["bucket"]
    assert (weights[0] == 1).all() and (weights[-1] == 0).all()
    corners = np.array(detail["corners"])
    assert corners[0].tolist() >= [0, 0] and corners[2].tolist() <= [96, 64]


def test_other_transforms_are_tried_and_taken_back(routes, opened):
    dataset, _ = opened
    status, told = routes.look(dataset, {"transform": OFF | {"invert": True}, "resolution": 64})
    assert (status, told["transform"]["invert"]) == (200, True)
    until(lambda: routes.get(f"/{dataset}")["measured"] == 3)
    assert routes.get(f"/{dataset}/pictures")["coverage"] == [0.4896, 1, 1]
    assert (routes.picture(f"/{dataset}/pictures/1/learned") == 255).all()
    status, told = routes.look(dataset, {"transform": None, "resolution": 32})
    assert (told["transform"], told["resolution"]) == (None, 32)
    until(lambda: routes.get(f"/{dataset}")["measured"] == 3)
    assert routes.get(f"/{dataset}/pictures")["coverage"] == [0.5, 0, 1]


def until(condition):
    """Waits for the measuring thread."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come to pass")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[]", "object"),
        (b"{", "no JSON"),
        ({}, "transform"),
        ({"transform": None}, "resolution"),
        ({"transform": None, "resolution": 64, "path": "/etc/passwd"}, "nothing else"),
        ({"transform": None, "resolution": -1}, "0 to 8192"),
        ({"transform": None, "resolution": True}, "whole number"),
        ({"transform": {"invert": True}, "resolution": 64}, "exactly the fields"),
        ({"transform": OFF | {"grow": 10_000}, "resolution": 64}, "grow"),
        ({"transform": OFF | {"feather": "9"}, "resolution": 64}, "feather"),
        ({"transform": OFF | {"invert": 1}, "resolution": 64}, "invert"),
    ],
)
def test_a_body_of_another_form_is_refused_and_changes_nothing(routes, opened, body, words):
    dataset, _ = opened
    before = routes.get(f"/{dataset}")["version"]
    status, told = routes.look(dataset, body)
    assert status == 400 and words in told["error"]
    assert routes.get(f"/{dataset}")["version"] == before


@pytest.mark.parametrize("headers", [{"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_a_page_from_another_origin_changes_nothing(routes, opened, headers):
    dataset, _ = opened
    assert routes.look(dataset, {"transform": None, "resolution": 32}, **headers)[0] == 403
    assert routes.get(f"/{dataset}")["resolution"] == 64


def test_a_body_of_fifty_megabytes_is_refused(routes, opened):
    dataset, _ = opened
    headers = {"Content-Type": "application/json", "Content-Length": str(50 << 20)}
    assert routes.ask("POST", f"/{dataset}/look", b"{" + b" " * 10_000, headers)[0] == 413


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/{NOBODY}", 404),
        (f"/{NOBODY}/pictures/0/image", 404),
        ("/..", 400),
        ("/%2e%2e%2f%2e%2e%2fetc", 400),
        ("/ABCDEF0123456789ABCD", 400),
        ("/{id}/pictures/3", 404),
        ("/{id}/pictures/-1", 400),
        ("/{id}/pictures/..%2f..%2fsecret", 400),
        ("/{id}/pictures/0/thumbnail?view=secret", 400),
        ("/{id}/pictures/0/thumbnail?side=9000", 400),
        ("/{id}/pictures/0/thumbnail?colour=red", 400),
        ("/{id}/pictures/0/thumbnail?colour=0000", 400),
        ("/{id}/pictures/0/infill/0", 404),
    ],
)
def test_what_does_not_exist_is_refused_with_a_status(routes, opened, path, status):
    found, headers, body = routes.ask("GET", path.format(id=opened[0]))
    assert found == status, body
    assert b"/etc/passwd" not in body
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_picture_that_is_gone_is_named(routes, opened):
    dataset, folder = opened
    (folder / "cat 1.png").unlink()
    status, _, body = routes.ask("GET", f"/{dataset}/pictures/0/image")
    assert status == 422 and "cat 1.png" in json.loads(body)["error"]


@pytest.mark.parametrize("name", ["cat 2.png", "cat 1_mask.png"])
def test_a_file_that_became_a_link_to_elsewhere_is_not_served(routes, opened, tmp_path, name):
    dataset, folder = opened
    secret = tmp_path / "secret.png"
    Image.new("RGB", (96, 64), (7, 99, 200)).save(secret)
    (folder / name).unlink()
    try:
        (folder / name).symlink_to(secret)
    except OSError:
        pytest.skip("this system makes no links")
    index = 0 if "mask" in name else 1
    for path in ("image", "learned", "thumbnail?side=133"):
        status, _, body = routes.ask("GET", f"/{dataset}/pictures/{index}/{path}")
        assert (status, b"leads out of the allowed folders" in body) == (403, True), path
    assert routes.ask("GET", f"/{dataset}/pictures/{1 - index}/image")[0] == 200
