"""The nodes' promises: permanent ids, tooltips, few visible inputs, help pages, an append-only schema."""

import asyncio
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SNAPSHOT = ROOT / "tests" / "snapshots" / "schema.json"
UPDATE = "MASKLORA_UPDATE_SNAPSHOT"
MOST_VISIBLE = 8

NODES = ROOT / "nodes" / "__init__.py"
pytestmark = pytest.mark.skipif(not NODES.is_file(), reason="the pack has no nodes yet")


@pytest.fixture(scope="module")
def schemas(comfy_host):
    """Every node's schema by id, from the pack's own entry point."""
    import masked_lora_pack

    async def node_classes():
        extension = await masked_lora_pack.comfy_entrypoint()
        return await extension.get_node_list()

    # Playwright leaves an event loop in the main thread.
    with ThreadPoolExecutor(1) as thread:
        classes = thread.submit(lambda: asyncio.run(node_classes())).result()
    return {schema.node_id: schema for schema in (node.GET_SCHEMA() for node in classes)}


def in_saved_order(inputs):
    """Inputs as saved workflows order them: required ones first."""
    return sorted(inputs, key=lambda one: bool(one.optional))


def described(schema):
    """What a saved workflow depends on."""
    return {
        "inputs": [[one.id, one.get_io_type()] for one in in_saved_order(schema.inputs)],
        "outputs": [[one.id or one.display_name or "", one.get_io_type()] for one in schema.outputs],
    }


def test_ids_and_categories_are_the_pack_s_own(schemas):
    assert schemas
    for node_id, schema in schemas.items():
        assert node_id.startswith("MLT_")
        assert schema.category.split("/")[0] == "masked lora", node_id


def test_every_input_and_output_has_a_tooltip(schemas):
    silent = [
        f"{node_id}.{one.id or one.display_name}"
        for node_id, schema in schemas.items()
        for one in [*schema.inputs, *schema.outputs]
        if not (one.tooltip or "").strip()
    ]
    assert silent == []


def test_every_node_has_a_name_and_a_description(schemas):
    assert [i for i, schema in schemas.items() if not (schema.display_name and schema.description)] == []


def test_no_text_boasts_of_what_others_lack(schemas):
    every = ((i, one) for i, schema in schemas.items() for one in (*schema.inputs, *schema.outputs))
    texts = [f"{i}.{one.id}: {one.tooltip}" for i, one in every]
    assert [text for text in texts if re.search(r"\bno other\b|\bonly trainer\b", text, re.IGNORECASE)] == []


def test_a_node_shows_at_most_eight_inputs(schemas):
    shown = {i: sum(not one.advanced for one in schema.inputs) for i, schema in schemas.items()}
    assert {node_id: count for node_id, count in shown.items() if count > MOST_VISIBLE} == {}


def test_every_node_has_a_help_page_and_every_page_a_node(schemas):
    pages = {path.stem: path for path in (ROOT / "web" / "docs").glob("MLT_*.md")}
    assert set(pages) == set(schemas)
    for node_id, page in pages.items():
        text = page.read_text(encoding="utf-8")
        missing = [one.id for one in schemas[node_id].inputs if one.id not in text]
        assert missing == [], f"{page.name} does not mention {missing}"


def test_saved_workflows_keep_working_because_schemas_only_grow(schemas):
    current = {node_id: described(schema) for node_id, schema in sorted(schemas.items())}
    if os.environ.get(UPDATE):
        SNAPSHOT.parent.mkdir(exist_ok=True)
        SNAPSHOT.write_text(json.dumps(current, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    recorded = json.loads(SNAPSHOT.read_text(encoding="utf-8"))
    assert recorded.keys() - current.keys() == set()
    for node_id, before in recorded.items():
        for part, entries in before.items():
            kept = current[node_id][part][: len(entries)]
            assert kept == entries, f"{node_id}: {part} were changed, not appended to"
    assert current == recorded, f"the schemas have grown: run this once with {UPDATE}=1 and commit"


def test_every_example_has_a_thumbnail_and_uses_nodes_that_exist(schemas):
    for path in sorted([*(ROOT / "workflows").glob("*.json"), *(ROOT / "demo" / "workflows").glob("*.json")]):
        assert path.with_suffix(".jpg").is_file(), f"{path.name} has no thumbnail"
        graph = json.loads(path.read_text(encoding="utf-8"))
        ours = {node["type"] for node in graph["nodes"] if node["type"].startswith("MLT_")}
        assert ours, f"{path.name} uses none of the pack's nodes"
        assert ours <= schemas.keys(), path.name
