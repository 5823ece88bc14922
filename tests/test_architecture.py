"""The floors and the style of the code base, read from its source."""

import ast
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from devtools.page_modules import modules, stamped

ROOT = Path(__file__).resolve().parents[1]
SKIPPED = {"__pycache__", "node_modules", "venv", "output"}
LONGEST_FILE = 500
LONGEST_FUNCTION = 80
USUAL_FUNCTION = 40
MOST_PARAMETERS = 8
VAGUE_NAMES = {"utils", "util", "helpers", "misc", "common"}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)

OUR_PACKAGES = {"masklora", "nodes", "devtools", "demo", "benchmarks", "masked_lora_pack"}
HOST_MODULES = {"folder_paths", "server", "execution", "latent_preview", "node_helpers", "comfyui_version"}
UNSAFE_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
UNSAFE_KEYWORDS = {"shell": True, "trust_remote_code": True, "allow_pickle": True, "weights_only": False}

# Folders in the order in which a sample passes them; each imports only what stands before it.
FLOORS = (
    ("errors", "findings"),
    ("files", "documents", "file_names"),
    ("settings",),
    ("goals", "experts", "peers", "pulse", "torchrun"),
    ("loss", "pictures", "adapters", "autograd", "optimizers"),
    ("clips",),
    ("folder",),
    ("dataset",),
    ("cache", "saving", "gathering"),
    ("viewing", "runs", "showings"),
    ("training", "generators"),
    ("host/families",),
    ("host/swap",),
    ("host/layers", "host/references"),
    ("host/model", "host/finders"),
    ("host/texts", "host/likeness"),
    ("host/memory",),
    ("host",),
    ("host/page",),
    ("host/headless",),
    ("host/apart",),
)
RANKS = {name: rank for rank, names in enumerate(FLOORS) for name in names}
NODES_RANK = len(FLOORS)
# Families are files of one kind, however many there are.
MOST_MODULES, UNCOUNTED = 15, {"masklora/host/families"}

MACHINE_PATHS = re.compile(r"/(home|Users)/\w|/(root|work)/|[A-Z]:\\+Users")
REGISTRIES = re.compile(r"(pypi|pythonhosted|npmjs)\.(org|com)|download\.pytorch")
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".js", ".mjs", ".css", ".html", ".yaml", ".yml", ".sh", ""}


def files(*suffixes):
    """The repository's files, without caches and hidden folders."""
    found = []
    for path in sorted(ROOT.rglob("*")):
        parts = path.relative_to(ROOT).parts
        hidden = any(part in SKIPPED or (part.startswith(".") and part != ".ci") for part in parts)
        if path.is_file() and not hidden and path.suffix in suffixes:
            found.append(path)
    return found


def name_of(path):
    return path.relative_to(ROOT).as_posix()


SOURCES = {name_of(path): path for path in files(".py")}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
SHIPPED = {name: tree for name, tree in TREES.items() if not name.startswith("tests/")}
PACK = {name: tree for name, tree in TREES.items() if name.startswith(("masklora/", "nodes/"))}


def length(node):
    return node.end_lineno - node.lineno + 1


def functions(trees):
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, FUNCTION):
                yield f"{name}:{node.lineno} {node.name}", node


def runtime_nodes(tree):
    """Every node except those below `if TYPE_CHECKING:`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            waiting.extend(node.orelse)
            continue
        yield node
        waiting.extend(ast.iter_child_nodes(node))


def imported_modules(name, tree):
    """Dotted names of what the module `name` imports at run time; relative ones resolved against the root."""
    package = name.split("/")[:-1]
    for node in runtime_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            prefix = "." if node.level else ""
            for alias in node.names:
                inner = f"{module}.{alias.name}".replace(".", "/")
                is_module = f"{inner}.py" in TREES or f"{inner}/__init__.py" in TREES
                yield prefix + (inner.replace("/", ".") if is_module else module)


def rank(module):
    """How high a module of ours stands; imports go from high to low."""
    head, _, rest = module.partition(".")
    if head == "nodes":
        return NODES_RANK
    first, _, more = rest.partition(".")
    inner = f"{first}/{more.partition('.')[0]}"
    return RANKS[inner if inner in RANKS else first]


def test_folders_hold_few_modules():
    counted = Counter(str(Path(name).parent) for name in PACK if not name.endswith("__init__.py"))
    held = {folder: count for folder, count in counted.items() if folder.startswith("masklora")}
    assert {f: n for f, n in held.items() if n > MOST_MODULES and f not in UNCOUNTED} == {}


def test_files_are_short():
    too_long = {n: text.count("\n") for n, p in SOURCES.items() if (text := p.read_text(encoding="utf-8"))}
    shipped = [path for path in files(".js", ".mjs", ".css") if "vendor" not in path.parts]
    too_long |= {name_of(path): path.read_text(encoding="utf-8").count("\n") for path in shipped}
    assert {n: k for n, k in too_long.items() if k > LONGEST_FILE and not n.startswith("tests/")} == {}


def test_functions_are_short():
    long = [f"{place}: {length(node)}" for place, node in functions(TREES) if length(node) > LONGEST_FUNCTION]
    assert long == []


def test_nine_functions_in_ten_fit_on_a_screen():
    lengths = sorted(length(node) for _, node in functions(SHIPPED))
    assert lengths[int(0.9 * len(lengths))] <= USUAL_FUNCTION


def test_functions_take_few_parameters():
    def count(node):
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        return len([a for a in arguments if a.arg not in ("self", "cls")])

    # A node's execute, validate_inputs and fingerprint_inputs take one parameter for each widget.
    by_schema = {"execute", "validate_inputs", "fingerprint_inputs", "check_lazy_status"}
    many = [
        f"{place}: {count(node)}"
        for place, node in functions(SHIPPED)
        if count(node) > MOST_PARAMETERS and not (place.startswith("nodes/") and node.name in by_schema)
    ]
    assert many == []


def test_no_file_has_a_name_that_says_nothing():
    assert [name for name in SOURCES if Path(name).stem in VAGUE_NAMES] == []


def test_the_pack_imports_itself_relatively():
    wrong = [
        f"{name}: {module}"
        for name, tree in PACK.items()
        for module in imported_modules(name, tree)
        if module.split(".")[0] in OUR_PACKAGES - {"nodes"} or module.startswith("nodes.")
    ]
    assert wrong == []


def test_imports_point_down_only():
    upward = []
    for name, tree in PACK.items():
        own = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if own == "masklora":
            continue
        for module in imported_modules(name, tree):
            if module.startswith(".") and rank(module[1:]) > rank(own):
                upward.append(f"{own} imports {module[1:]}")
    assert upward == []


def test_imports_make_no_circle():
    graph = {}
    for name, tree in PACK.items():
        own = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        graph[own] = {m[1:] for m in imported_modules(name, tree) if m.startswith(".")} - {own}
    while free := [module for module, needs in graph.items() if not needs & graph.keys()]:
        for module in free:
            del graph[module]
    assert graph == {}


def test_only_the_host_part_knows_comfyui():
    def is_comfyui(module):
        head = module.split(".")[0]
        return head in HOST_MODULES or head == "comfy" or head.startswith("comfy_") or module == "nodes"

    wrong = [
        f"{name}: {module}"
        for name, tree in PACK.items()
        if not name.startswith(("nodes/", "masklora/host/"))
        for module in imported_modules(name, tree)
        if is_comfyui(module)
    ]
    assert wrong == []


def test_masked_mean_is_defined_once_and_no_other_loss_reduction_exists():
    defined = [place for place, node in functions(TREES) if node.name == "masked_mean"]
    assert len(defined) == 1
    assert defined[0].startswith("masklora/loss/losses.py:")
    elsewhere = [
        f"{name}:{node.lineno} {node.attr}"
        for name, tree in PACK.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr.endswith("_loss") and name != "masklora/loss/losses.py"
        if ast.unparse(node.value) in ("F", "torch.nn.functional", "nn.functional", "functional")
    ]
    assert elsewhere == []


def test_nothing_can_run_code_from_data():
    found = []
    for name, tree in SHIPPED.items():
        found += [f"{name}: {m}" for m in imported_modules(name, tree) if m.split(".")[0] in UNSAFE_MODULES]
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            given = {k.arg: k.value.value for k in node.keywords if isinstance(k.value, ast.Constant)}
            if called in UNSAFE_CALLS or (called == "torch.load" and given.get("weights_only") is not True):
                found.append(f"{name}:{node.lineno} {called}")
            bad = [key for key, value in UNSAFE_KEYWORDS.items() if given.get(key) is value]
            found += [f"{name}:{node.lineno} {key}" for key in bad]
    assert found == []


def test_no_module_keeps_state_through_global_statements():
    walked = ((name, node) for name, tree in PACK.items() for node in ast.walk(tree))
    assert [f"{name}:{node.lineno}" for name, node in walked if isinstance(node, ast.Global)] == []


@pytest.mark.parametrize("pattern", [MACHINE_PATHS, REGISTRIES], ids=["paths", "registries"])
def test_no_file_names_a_machine_s_own_path_or_a_registry_s_host(pattern):
    found = []
    for path in files(*TEXT):
        if path.name == "LICENSE":
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if pattern.search(line):
                found.append(f"{name_of(path)}:{number} {line.strip()[:90]}")
    assert found == []


def test_the_registry_s_dependencies_are_the_requirements():
    def names(lines):
        return {line.split("#")[0].strip() for line in lines} - {""}

    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    listed = ast.literal_eval(re.search(r"^dependencies = (\[.*?^\])", text, re.M | re.S).group(1))
    required = names((ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines())
    assert set(listed) == required
    assert {re.split(r"[^\w-]", line)[0] for line in required}.isdisjoint({"torch", "torchvision", "torchaudio"})
    optional = ast.literal_eval(re.search(r"^optimizers = (\[.*?\])", text, re.M | re.S).group(1))
    assert required.isdisjoint(optional)
    assert set(optional) <= names((ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8").splitlines())


def test_the_page_loads_one_module_as_an_entry_point_and_none_of_another_version():
    """ComfyUI imports every .js file of the page, and lets browsers keep the others for as long as they like."""
    entries = [path.relative_to(ROOT).as_posix() for path in (ROOT / "web").rglob("*.js")]
    assert entries == ["web/main.js"]
    code = {name_of(path): path.read_text(encoding="utf-8") for path in modules()}
    old = [name for name, text in code.items() if stamped(text) != text]
    assert old == [], "`python dev.py run devtools/page_modules.py` writes the version into them"
    bare = re.compile(r"""["'`]\.{1,2}/[\w./-]+\.mjs["'`]""")
    assert [name for name, text in code.items() if bare.search(text)] == []


def test_the_page_writes_no_html_from_text():
    """Names, captions and errors are anybody's text; only nodes and their text content are made of them."""
    writes = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc")
    shipped = [path for path in files(".js", ".mjs", ".html") if "vendor" not in path.parts and "web" in path.parts]
    assert len(shipped) > 10
    assert [name_of(path) for path in shipped if writes.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("what", [("check", "--output-format=concise"), ("format", "--check")], ids=["check", "format"])
def test_ruff_finds_nothing(what):
    command = [sys.executable, "-m", "ruff", what[0], "--no-cache", *what[1:], str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
