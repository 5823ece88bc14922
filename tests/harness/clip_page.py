"""A folder with clips in the page's data set browser."""

TILES = ".mlt-browser .mlt-tile:not([hidden])"


def show_clips(page, defaults, folder, count, *, sam3=None):
    """The browser in the page on a folder of that many pictures and clips, once all have their thumbnails.

    `sam3` is the name of a checkpoint whose model is connected.
    """
    nodes = {
        "1": {"class_type": "MLT_LoadDataset", "inputs": defaults("MLT_LoadDataset", folder=folder)},
        "2": {
            "class_type": "MLT_InspectDataset",
            "inputs": defaults("MLT_InspectDataset", dataset=["1", 0], resolution=64),
        },
    }
    if sam3:
        loader = defaults("CheckpointLoaderSimple", ckpt_name=sam3)
        nodes["3"] = {"class_type": "CheckpointLoaderSimple", "inputs": loader}
        nodes["2"]["inputs"]["sam3"] = ["3", 0]
    page.evaluate("async graph => { await window.app.loadApiJson(graph, 'clips') }", nodes)
    page.evaluate("() => window.app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    page.page.wait_for_selector(".mlt-browser")
    page.queue()
    shown = f"count => document.querySelectorAll('{TILES} img[src]').length === count"
    page.page.wait_for_function(shown, arg=count)
