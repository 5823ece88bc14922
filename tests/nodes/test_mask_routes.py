"""The routes of the mask editor on a real server: what they give and save, and what they refuse."""

import contextlib
import http.client
import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from harness.segmentation_models import SAM3_FILE

SIZE = (96, 64)
NOBODY = "0" * 20
PAINTED = np.random.default_rng(3).integers(0, 256, SIZE[::-1]).astype(np.uint8)


def png(levels, mode=None):
    file = io.BytesIO()
    Image.fromarray(levels, mode).save(file, "PNG")
    return file.getvalue()


def pixels(body):
    image = Image.open(io.BytesIO(body))
    assert (image.format, image.mode) == ("PNG", "L")
    return np.asarray(image)


class Opened:
    """Plain HTTP about one opened data set."""

    def __init__(self, server):
        self.server, self.id = server, NOBODY

    def ask(self, method, path, body=None, headers=None, *, whole=False):
        """Status, headers and body, parsed where it is JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        place = path if whole else f"/datasets/{self.id}/pictures/{path}"
        # The server may answer, and close, before everything is sent.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            chunked = "Transfer-Encoding" in (headers or {})
            connection.request(method, f"/api/masked_lora{place}", body, headers or {}, encode_chunked=chunked)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if answer.headers.get_content_type() == "application/json":
            content = json.loads(content)
        return answer.status, answer.headers, content

    def get(self, path):
        status, headers, content = self.ask("GET", path)
        assert status == 200, content
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"
        return headers, content

    def mask(self, picture=0):
        """Token and pixels."""
        headers, content = self.get(f"{picture}/mask")
        return headers["ETag"], pixels(content)

    def save(self, levels, token, picture=0, **headers):
        body = levels if isinstance(levels, bytes) else png(levels)
        headers = {"Content-Type": "image/png", "If-Match": token} | headers
        status, _, content = self.ask(
            "POST", f"{picture}/mask", body, {name: value for name, value in headers.items() if value is not None}
        )
        return status, content

    def post(self, path, values):
        body = values if isinstance(values, bytes) else json.dumps(values).encode()
        status, _, content = self.ask("POST", path, body, {"Content-Type": "application/json"})
        return status, content


@pytest.fixture
def opened(comfy_server):
    return Opened(comfy_server)


@pytest.fixture
def look(opened, comfy_client, graph):
    """Opens a folder by running its graph; gives the folder's routes."""

    def run(folder, *, sam3=None, **settings):
        load = graph.add("MLT_LoadDataset", folder=folder, **settings)
        links = {}
        if sam3 is not None:
            links["sam3"] = [graph.add("CheckpointLoaderSimple", ckpt_name=sam3), 0]
        node = graph.add("MLT_InspectDataset", dataset=[load, 0], **links)
        opened.id = comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]
        return opened

    return run


@pytest.fixture
def masked(look, folders):
    """Three pictures with masks beside them."""
    folder = folders.make("edited", size=SIZE)
    for i in (1, 2, 3):
        folders.mask(folder / f"cat {i}_mask.png", size=SIZE)
    opened = look("edited")
    opened.folder = folder
    return opened


def test_a_saved_mask_is_on_the_disk_and_is_given_again(masked):
    token, before = masked.mask()
    assert (before[: SIZE[1] // 2] == 255).all() and (before[SIZE[1] // 2 :] == 0).all()
    assert masked.ask("GET", "0/mask/previous")[0] == 404
    status, told = masked.save(PAINTED, token)
    assert (status, told["index"], told["changed"]) == (200, 0, [0])
    assert np.array_equal(np.asarray(Image.open(masked.folder / "cat 1_mask.png")), PAINTED)
    assert np.array_equal(masked.mask()[1], PAINTED)
    assert masked.mask()[0] == f'"{told["token"]}"' != token
    assert np.array_equal(pixels(masked.get("0/mask/previous")[1]), before)
    assert np.array_equal(masked.mask(1)[1], before)


def test_what_is_shown_follows_a_save(masked):
    before = masked.ask("GET", f"/datasets/{masked.id}/pictures", whole=True)[2]
    masked.save(np.zeros(SIZE[::-1], np.uint8), masked.mask(1)[0], picture=1)
    after = masked.ask("GET", f"/datasets/{masked.id}/pictures", whole=True)[2]
    assert after["version"] > before["version"]
    assert [a != b for a, b in zip(after["stamp"], before["stamp"], strict=True)] == [False, True, False]
    assert after["coverage"] == [0.5, 0.0, 0.5] and "all_black" in after["warnings"][1]


def test_the_later_of_two_saves_is_told_and_changes_nothing(masked):
    token, _ = masked.mask()
    assert masked.save(PAINTED, token)[0] == 200
    status, told = masked.save(255 - PAINTED, token)
    assert status == 412
    assert "cat 1.png" in told["error"] and "changed elsewhere" in told["error"]
    assert np.array_equal(masked.mask()[1], PAINTED)
    assert masked.save(255 - PAINTED, masked.mask()[0])[0] == 200


def test_the_token_has_to_be_there_and_be_one(masked):
    before = masked.mask()[1]
    assert masked.save(PAINTED, None)[0] == 428
    for bad in ("", "*", "none", '"../../x"', '"' + "a" * 65 + '"', '"a", "b"'):
        assert masked.save(PAINTED, bad)[0] == 400
    assert masked.save(PAINTED, '"none"')[0] == 412
    assert np.array_equal(masked.mask()[1], before)


def whole_png(width, height, rows=None, *, depth=8, colour=0):
    """A PNG by hand, whose header may say more than its rows hold."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"\0" * (rows if rows is not None else (width + 1) * height))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


GREY = Image.fromarray(PAINTED)
BAD_BODIES = {
    "nothing": b"",
    "no picture": b"white",
    "another size": png(PAINTED.T.copy()),
    "in colour": png(np.dstack([PAINTED] * 3)),
    "with alpha": png(np.dstack([PAINTED] * 2), "LA"),
    "sixteen bits": png(PAINTED.astype(np.uint16)),
    "one bit": png(PAINTED > 9),
    "half of it": png(PAINTED)[:2000],
    "fewer rows than it says": whole_png(*SIZE, rows=100),
    "a bomb": whole_png(60_000, 60_000, rows=10),
}


def other_format(name):
    file = io.BytesIO()
    GREY.save(file, name)
    return file.getvalue()


@pytest.mark.parametrize("body", [*BAD_BODIES.values(), other_format("JPEG"), other_format("BMP")])
def test_a_body_that_is_no_grey_png_of_the_picture_s_size_is_refused(masked, body):
    token, before = masked.mask()
    status, told = masked.save(body, token)
    assert (status, "96×64" in told["error"]) == (400, True)
    assert np.array_equal(masked.mask()[1], before)


@pytest.mark.parametrize("kind", ["image/jpeg", "text/plain", "application/json", "multipart/form-data", None])
def test_a_body_that_is_not_called_png_is_refused(masked, kind):
    assert masked.save(PAINTED, masked.mask()[0], **{"Content-Type": kind})[0] == 415


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_of_fifty_megabytes_is_refused(masked, chunked):
    piece = b"\x89PNG\r\n\x1a\n" + b" " * (2**20 - 8)
    body = (piece for _ in range(50)) if chunked else piece * 50
    headers = {"Content-Type": "image/png", "If-Match": masked.mask()[0]}
    headers |= {"Transfer-Encoding": "chunked"} if chunked else {}
    assert masked.ask("POST", "0/mask", body, headers)[0] == 413
    assert masked.mask()[1].shape == SIZE[::-1]


@pytest.mark.parametrize(
    "headers",
    [{"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}],
)
@pytest.mark.parametrize("path", ["mask", "grabcut", "select"])
def test_a_page_from_another_origin_is_refused(masked, path, headers):
    token, before = masked.mask()
    kind = "image/png" if path == "mask" else "application/json"
    body = png(PAINTED) if path == "mask" else b'{"box": [0, 0, 10, 10]}'
    headers = {"Content-Type": kind, "If-Match": token} | headers
    assert masked.ask("POST", f"0/{path}", body, headers)[0] == 403
    assert np.array_equal(masked.mask()[1], before)


def test_an_id_or_number_that_is_none_or_unknown_is_refused(masked):
    for number, expected in (("3", 404), ("999999999", 404), ("-1", 400), ("x", 400), ("%2e%2e", 400), ("1e1", 400)):
        assert masked.ask("GET", f"{number}/mask")[0] == expected
        assert masked.save(PAINTED, '"none"', picture=number)[0] == expected
        assert masked.post(f"{number}/grabcut", {"box": [0, 0, 9, 9]})[0] == expected
    for name, expected in ((NOBODY, 404), ("..", 400), ("%2e%2e", 400), ("edited", 400), ("A" * 20, 400)):
        for path in ("mask", "mask/previous"):
            assert masked.ask("GET", f"/datasets/{name}/pictures/0/{path}", whole=True)[0] in (expected, 404)
    assert masked.ask("GET", "0/grabcut")[0] in (404, 405)


def test_a_caption_is_saved_and_told_and_what_is_no_caption_is_refused(masked):
    _, raw = masked.get("0/caption")
    assert (raw["text"], raw["file"]) == ("a cät, number 1", "cat 1.txt")
    status, saved = masked.post("0/caption", {"text": "new words", "token": raw["token"]})
    assert status == 200 and saved["changed"] == [0]
    assert (masked.folder / "cat 1.txt").read_text(encoding="utf-8") == "new words\n"
    assert masked.get("0")[1]["caption"] == "new words"
    assert masked.post("0/caption", {"text": "mine", "token": raw["token"]})[0] == 412
    for body in ({}, {"text": "x"}, {"text": 1, "token": "none"}, {"text": "x", "token": "none", "file": "../x.txt"}):
        assert masked.post("1/caption", body)[0] == 400
    assert masked.post("1/caption", {"text": "x\0", "token": masked.get("1/caption")[1]["token"]})[0] in (400, 422)
    assert masked.post("9/caption", {"text": "x", "token": "none"})[0] == 404
    assert masked.post("1/caption", b"[" * 4000)[0] == 400
    assert masked.ask("POST", "1/caption", b"{}", {"Content-Type": "text/plain"})[0] in (400, 415)
    assert (masked.folder / "cat 2.txt").read_text(encoding="utf-8") == "a cät, number 2"


def test_grabcut_finds_what_is_in_the_box(look, folders):
    folder = folders.make("cut", count=1, size=SIZE)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    disc = np.hypot(x - 40, y - 30) < 15
    rgb = np.random.default_rng(1).integers(0, 30, (*disc.shape, 3)).astype(np.uint8)
    rgb[disc] += np.array([200, 40, 20], np.uint8)
    Image.fromarray(rgb).save(folder / "cat 1.png")
    opened = look("cut")
    status, body = opened.post("0/grabcut", {"box": [20, 10, 40, 40]})
    assert status == 200
    found = pixels(body) > 127
    assert (found & disc).sum() / (found | disc).sum() > 0.95
    assert opened.mask()[1].min() == 255
    status, told = opened.post("0/grabcut", {"box": [70, 50, 2, 2]})
    assert (status, "GrabCut found nothing" in told["error"]) == (422, True)


@pytest.mark.parametrize(
    "values",
    [
        {},
        [],
        b"{",
        {"box": [1, 2, 3]},
        {"box": [1, 2, 3, "4"]},
        {"box": [1, 2, True, 4]},
        {"box": "1 2 3 4"},
        {"box": [200, 2, 30, 40]},
        {"box": [1, 2, -3, 4]},
        {"box": [1, 2, 1e300, 4]},
        b'{"box": [1, 2, NaN, 4]}',
        {"box": [1, 2, 3, 4], "path": "/etc/passwd"},
        {"points": []},
        {"points": [{"x": 1, "y": 1}]},
        {"points": [{"x": 1, "y": 1, "inside": 1}]},
        {"points": [{"x": 1, "y": 1, "inside": False}]},
        {"points": [{"x": 96, "y": 1, "inside": True}]},
        {"points": [{"x": 1, "y": 1, "inside": True}] * 33},
    ],
)
def test_values_of_another_form_are_refused(masked, values):
    assert masked.post("0/select", values)[0] == 400
    assert masked.post("0/grabcut", values)[0] == 400


def test_selecting_without_a_model_says_what_to_connect(masked):
    status, told = masked.post("0/select", {"points": [{"x": 5, "y": 5, "inside": True}]})
    assert (status, "sam3 of Inspect Dataset" in told["error"]) == (409, True)


@pytest.fixture
def things(folders):
    """A picture of two white squares on black, and where they are."""
    folder = folders.make("things", count=1)
    first, second = np.zeros((2, 120, 160), bool)
    first[20:60, 20:60], second[70:110, 90:140] = True, True
    Image.fromarray(np.dstack([(first | second).astype(np.uint8) * 255] * 3)).save(folder / "cat 1.png")
    return first, second


def overlap(body, truth):
    found = pixels(body) > 127
    return (found & truth).sum() / (found | truth).sum()


def test_a_click_selects_what_is_there(look, things, small_models):
    first, second = things
    opened = look("things", sam3=SAM3_FILE)
    inside = {"x": 40, "y": 40, "inside": True}
    other = {"x": 110, "y": 90, "inside": True}
    assert overlap(opened.post("0/select", {"points": [inside]})[1], first) > 0.9
    assert overlap(opened.post("0/select", {"points": [inside, other]})[1], first | second) > 0.9
    both = {"points": [inside, other, other | {"inside": False}]}
    assert overlap(opened.post("0/select", both)[1], first) > 0.9
    assert overlap(opened.post("0/select", {"box": [80, 60, 70, 55]})[1], second) > 0.9


def test_the_real_network_takes_points_and_boxes(look, things, small_models):
    opened = look("things", sam3="random sam3.safetensors")
    for prompt in ({"points": [{"x": 40, "y": 40, "inside": True}]}, {"box": [10, 10, 60, 60]}):
        status, body = opened.post("0/select", prompt)
        assert status == 200, body
        assert pixels(body).shape == (120, 160)


def test_selecting_waits_for_the_queue(look, things, small_models, comfy_client, train_graph):
    opened = look("things", sam3=SAM3_FILE)
    prompt_id = comfy_client.submit(train_graph(name="busy", steps=3000))
    try:
        status, told = opened.post("0/select", {"points": [{"x": 40, "y": 40, "inside": True}]})
        assert (status, "busy with the queue" in told["error"]) == (409, True)
        assert opened.mask()[1].shape == (120, 160)
    finally:
        comfy_client.wait_for(lambda kind, data: kind == "execution_start" and data["prompt_id"] == prompt_id)
        comfy_client.interrupt()
        comfy_client.finish(prompt_id, check=False)


def test_a_mask_without_a_file_says_what_to_do(opened, comfy_client, graph, folders):
    folders.make("made", size=SIZE)
    load = graph.add("MLT_LoadDataset", folder="made")
    made = graph.add("MLT_RandomMasks", dataset=[load, 0], combine="replace")
    node = graph.add("MLT_InspectDataset", dataset=[made, 0])
    opened.id = comfy_client.run(graph.nodes).outputs[node]["masked_lora_dataset"][0]
    status, _, told = opened.ask("GET", "0/mask")
    assert (status, "Save Masks" in told["error"]) == (422, True)
    status, told = opened.save(PAINTED, '"none"')
    assert (status, "Save Masks" in told["error"]) == (422, True)


@pytest.fixture
def cached(opened, comfy_client, graph, demo_inputs):
    """Runs a graph that caches and inspects the data set of a node; gives the cache's report."""

    def run(dataset):
        checkpoint = graph.add("CheckpointLoaderSimple", ckpt_name=demo_inputs)
        cache = graph.add(
            "MLT_CacheDataset",
            dataset=[dataset, 0],
            vae=[checkpoint, 2],
            clip=[checkpoint, 1],
            resolution=64,
            bucket_step=16,
            min_resolution=32,
            infill_variants=0,
        )
        node = graph.add("MLT_InspectDataset", dataset=[dataset, 0], cache=[cache, 0])
        report = graph.text([cache, 1])

        def again():
            ran = comfy_client.run(graph.nodes)
            opened.id = ran.outputs[node]["masked_lora_dataset"][0]
            return ran.outputs[report]["text"][0]

        return again

    return run


def stale(opened):
    columns = opened.ask("GET", f"/datasets/{opened.id}/pictures", whole=True)[2]
    return columns["stale"]


def test_an_edit_makes_only_its_own_entries_stale_and_the_next_run_builds_only_them(opened, cached, graph, folders):
    folder = folders.make("cached", size=SIZE)
    for i in (1, 2, 3):
        folders.mask(folder / f"cat {i}_mask.png", size=SIZE)
    again = cached(graph.add("MLT_LoadDataset", folder="cached"))
    again()
    status, told = opened.save(PAINTED, opened.mask(1)[0], picture=1)
    assert status == 200, told
    assert stale(opened) == [[], ["mask"], []]
    report = again()
    assert "made now: 0 latent, 1 mask, 0 text" in report
    assert stale(opened) == [[], [], []]
    assert np.array_equal(opened.mask(1)[1], PAINTED)


def test_an_edit_of_a_saved_mask_makes_the_cache_run_again_though_its_graph_did_not_change(
    opened, cached, graph, folders
):
    folders.make("generated", size=SIZE)
    load = graph.add("MLT_LoadDataset", folder="generated")
    made = graph.add("MLT_RandomMasks", dataset=[load, 0], combine="replace")
    again = cached(graph.add("MLT_SaveMasks", dataset=[made, 0], destination="generated masks"))
    again()
    status, told = opened.save(255 - PAINTED, opened.mask(2)[0], picture=2)
    assert status == 200, told
    assert stale(opened) == [[], [], ["mask"]]
    report = again()
    assert "made now: 0 latent, 1 mask, 0 text" in report
    assert stale(opened) == [[], [], []]
    assert np.array_equal(opened.mask(2)[1], 255 - PAINTED)


def test_an_edit_is_saved_although_another_picture_is_gone_and_that_is_told(opened, cached, graph, folders):
    folder = folders.make("one is gone", size=SIZE)
    for i in (1, 2, 3):
        folders.mask(folder / f"cat {i}_mask.png", size=SIZE)
    cached(graph.add("MLT_LoadDataset", folder="one is gone"))()
    (folder / "cat 3.png").unlink()
    status, told = opened.save(PAINTED, opened.mask(0)[0])
    assert status == 200, told
    status, told = opened.save(255 - PAINTED, f'"{told["token"]}"')
    assert status == 200, told
    assert np.array_equal(opened.mask(0)[1], 255 - PAINTED)
    assert "cat 3.png" in opened.ask("GET", f"/datasets/{opened.id}", whole=True)[2]["problem"]
