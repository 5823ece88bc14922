"""Which graphs several processes can execute together: those with one training, before which nothing is written."""

from __future__ import annotations

from .graph import Graph, titled
from .problems import Problem, RefusedError

_TRAIN_NODE, _CACHE_NODE = "MLT_TrainLoRA", "MLT_CacheDataset"
_WRITERS = ("MLT_SaveMasks", "MLT_SaveCaptions", "MLT_ExportLoRA", "MLT_SampleRun")


def shared_training(graph: Graph) -> list[str]:
    """The one node that several processes execute together.

    Raises:
        RefusedError: it is not one; one that writes comes before it, which every process would do; or a cache is not
            for it, which the first process would wait to share with the others.
    """
    trains = training_nodes(graph)
    if not trains:
        raise RefusedError("No node trains; several processes share one training. Give them a graph with one.")
    if len(trains) > 1:
        raise RefusedError(f"{len(trains)} nodes train; several processes share one training. Leave one of them.")
    needed = _before(graph, trains)
    if others := [n for n, one in graph.items() if one["class_type"] == _CACHE_NODE and n not in needed]:
        raise RefusedError(
            Problem(
                f"{titled(graph, others[0])} caches what the training does not use; several processes share what they "
                "cache. Let one process do that, by a graph of its own.",
                node=others[0],
            )
        )
    if writes := [node for node in needed if graph[node]["class_type"] in _WRITERS]:
        raise RefusedError(
            Problem(
                f"{titled(graph, writes[0])} comes before the training and writes files, which every process would "
                "do. Let one process do that first, by a graph of its own, and load what it wrote.",
                node=writes[0],
            )
        )
    return trains


def training_nodes(graph: Graph) -> list[str]:
    """The nodes that train, by their ids."""
    return [node for node, one in graph.items() if one["class_type"] == _TRAIN_NODE]


def _before(graph: Graph, wanted: list[str]) -> set[str]:
    """The nodes that these are made from, and these."""
    found, waiting = set(), list(wanted)
    while waiting:
        node = waiting.pop()
        if node not in found and node in graph:
            found.add(node)
            links = (one for one in graph[node]["inputs"].values() if isinstance(one, list) and len(one) == 2)
            waiting += [str(source) for source, _ in links]
    return found
