"""Texts that expressions of Python can make, as templates: `f"{name}: no mask"` is "{0}: no mask".

Names that stand for texts, either side of a condition and the forms of `counted` and `worded` are written out, so that
a translator has whole sentences; what else is filled in is a numbered hole.
"""

import ast
import itertools
import re
from dataclasses import dataclass, field

# More variants of one sentence than a translator should read; beyond, its parts are entries of their own.
MOST = 8
_FORMS = re.compile(r"\[([^|\]]*)\|([^\]]*)\]")
_FIELDS = re.compile(r"\{(\w*)(?::[^}]*)?\}")
# With a name it is for `format` wherever it stands; without, braces may be what is told.
_NAMED = re.compile(r"\{[a-z_]+(?::[^}]*)?\}")
# Of no file name and no sentence.
_MARK = "\ue000"
_COUNTING = {"counted": True, "worded": False}


@dataclass(frozen=True, eq=False)
class Hole:
    """Where a value is filled in, and the expression that gives it; `key` tells values of one expression apart."""

    node: ast.AST | None
    key: str = ""


@dataclass(frozen=True)
class Variant:
    """One text of an expression: literals and holes, and which way each condition went for it."""

    parts: tuple = ()
    ways: tuple = ()

    def plus(self, other):
        """This and then `other`; None where the two go different ways at the same condition."""
        ways = dict(self.ways)
        if any(ways.setdefault(key, way) != way for key, way in other.ways):
            return None
        return Variant(self.parts + other.parts, tuple(ways.items()))

    def template(self):
        """Literals and holes numbered from 0: equal expressions with equal numbers, holes side by side as one."""
        written, numbers, beside = "", {}, False
        for part in self.parts:
            if not isinstance(part, Hole):
                written += part
            elif not beside:
                key = part.key or (id(part) if part.node is None else ast.unparse(part.node))
                written += f"{{{numbers.setdefault(key, len(numbers))}}}"
            beside = isinstance(part, Hole) or (beside and not part)
        return written


@dataclass
class Module:
    """One file: its tree, the texts at its top by name, its functions, and what it imports from others of ours."""

    name: str
    tree: ast.Module
    constants: dict = field(default_factory=dict)
    functions: dict = field(default_factory=dict)
    imports: dict = field(default_factory=dict)


def read_module(name, code, package):
    """`code` of the module `name` in dots; a relative import is one of `package`, which is in dots too."""
    module = Module(name, ast.parse(code))
    values = {}
    for statement in ast.walk(module.tree):
        if isinstance(statement, ast.ImportFrom):
            base = package.split(".")[: len(package.split(".")) - statement.level + 1] if statement.level else []
            origin = ".".join([*base, *(statement.module or "").split(".")]).strip(".")
            module.imports |= {alias.asname or alias.name: (origin, alias.name) for alias in statement.names}
    for statement in module.tree.body:
        if isinstance(statement, ast.FunctionDef):
            module.functions[statement.name] = statement
        for target, value in assignments(statement):
            values.setdefault(target, []).append(value)
    module.constants = {name: found[0] for name, found in values.items() if len(found) == 1}
    return module


def assignments(statement):
    """(name, value) of an assignment, of `a, b = 1, 2` both; no others."""
    if isinstance(statement, ast.AnnAssign) and statement.value and isinstance(statement.target, ast.Name):
        yield statement.target.id, statement.value
    elif isinstance(statement, ast.Assign):
        for target in statement.targets:
            if isinstance(target, ast.Name):
                yield target.id, statement.value
            elif isinstance(target, ast.Tuple) and isinstance(statement.value, ast.Tuple):
                pairs = zip(target.elts, statement.value.elts, strict=False)
                yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


def own_nodes(function):
    """Everything in a function but what lies in functions inside it."""
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from own_nodes(child)


class Reader:
    """Reads expressions of one module; `used` has the uses of names that were written out."""

    def __init__(self, module, modules):
        self.module, self.modules, self.used = module, modules, set()

    def variants(self, node, scopes):
        """All texts of `node` inside the functions `scopes`, outermost first; none where it makes no text."""
        for depth in (3, 2, 1, 0):
            used = set()
            found = _Reading(self, scopes, depth, used).read(node)
            if found is None or len(found) <= MOST:
                self.used |= used
                return found or []
        return []


class _Reading:
    """One reading of an expression, which writes out less the smaller `depth` is."""

    def __init__(self, reader, scopes, depth, used, names=()):
        self.reader, self.scopes, self.depth, self.used, self.names = reader, scopes, depth, used, names

    def read(self, node):
        """The variants of a text, None where the expression makes none that could be told."""
        kind = type(node).__name__
        return getattr(self, f"_{kind.lower()}", lambda node: None)(node)

    def _filled(self, node):
        found = self.read(node)
        return [Variant((Hole(node),))] if found is None else found

    def _joined(self, groups):
        found = [Variant()]
        for group in groups:
            found = [one for pair in itertools.product(found, group) if (one := pair[0].plus(pair[1]))]
            if len(found) > 20 * MOST:
                break
        return found

    def _constant(self, node):
        return [Variant((node.value,))] if isinstance(node.value, str) else None

    def _joinedstr(self, node):
        return self._joined([self._piece(value) for value in node.values])

    def _piece(self, node):
        if isinstance(node, ast.Constant):
            return [Variant((node.value,))]
        plain = node.conversion == -1 and node.format_spec is None
        return self._filled(node.value) if plain else [Variant((Hole(node.value),))]

    def _binop(self, node):
        if not isinstance(node.op, ast.Add):
            return None
        left, right = self.read(node.left), self.read(node.right)
        if left is None and right is None:
            return None
        return self._joined([left or [Variant((Hole(node.left),))], right or [Variant((Hole(node.right),))]])

    def _ifexp(self, node):
        first, second = self.read(node.body), self.read(node.orelse)
        if self.depth < 1 or (first is None and second is None):
            return None
        key = ast.unparse(node.test)
        found = []
        for way, variants, value in ((True, first, node.body), (False, second, node.orelse)):
            turn = Variant((), ((key, way),))
            found += [turn.plus(one) for one in variants or [Variant((Hole(value),))]]
        return [one for one in found if one]

    def _call(self, node):
        name = node.func.id if isinstance(node.func, ast.Name) else None
        if name in _COUNTING and len(node.args) == 2:
            return self._counted(node, with_number=_COUNTING[name])
        if name == "printable" and node.args:
            return self.read(node.args[0])
        if isinstance(node.func, ast.Attribute) and node.func.attr == "format":
            return self._formatted(node)
        return self._helped(name, node)

    def _counted(self, node, *, with_number):
        texts = self.read(node.args[1])
        if texts is None:
            return None
        key = ("number", ast.unparse(node.args[0]))
        head = Variant((Hole(node.args[0]), " ")) if with_number else Variant()
        several = [_formed(one, 2) for one in texts]
        one = [_formed(one, 1) for one in texts]
        pairs = [(several, "several")] if one == several else [(one, "one"), (several, "several")]
        ways = [Variant((), ((key, way),)) for _, way in pairs] if len(pairs) > 1 else [Variant()]
        found = [ways[i].plus(text) for i, (group, _) in enumerate(pairs) for text in group]
        return [head.plus(text) for text in found if text]

    def _formatted(self, node):
        texts = self.read(node.func.value)
        if texts is None:
            return None
        return [fielded(text, _FIELDS) for text in texts]

    def _helped(self, name, node):
        """A short function of the same module that gives one text, or one and an empty one."""
        function = self.reader.module.functions.get(name)
        if function is None or self.depth < 3 or name in self.names:
            return None
        returns = [one.value for one in own_nodes(function) if isinstance(one, ast.Return)]
        if len(returns) != 1 or returns[0] is None:
            return None
        inside = _Reading(self.reader, (function,), 1, set(), (*self.names, name))
        found = inside.read(returns[0])
        if found is None or len(found) > 2:
            return None
        call = ast.unparse(node)
        return [
            Variant(
                tuple(Hole(node, f"{call} {ast.unparse(p.node)}") if isinstance(p, Hole) else p for p in one.parts),
                tuple((f"{call} {key}", way) for key, way in one.ways),
            )
            for one in found
        ]

    def _name(self, node):
        if node.id in self.names:
            return None
        for i in range(len(self.scopes) - 1, -1, -1):
            known = self._local(node, self.scopes[i], self.scopes[: i + 1])
            if known is not None:
                return known or None
        return self._constant_of(node, self.reader.module, node.id)

    def _local(self, node, function, scopes):
        """The texts of a variable; empty where it is one but not of texts, None where the function has none."""
        values, added, bound = [], [], node.id in _arguments(function)
        for one in own_nodes(function):
            values += [value for name, value in assignments(one) if name == node.id]
            if isinstance(one, ast.AugAssign) and isinstance(one.target, ast.Name) and one.target.id == node.id:
                added.append(one.value)
            bound = bound or (isinstance(one, ast.Name) and one.id == node.id and isinstance(one.ctx, ast.Store))
        if not values:
            return [] if bound else None
        if self.depth < 2 or node.id in _arguments(function) or len(added) > 1 or _stored(function, node.id, values):
            return []
        reading = _Reading(self.reader, scopes, self.depth, self.used, (*self.names, node.id))
        found = [reading.read(value) for value in values]
        if any(one is None for one in found):
            return []
        texts = [
            Variant((), (((node.id, "assigned"), i),)).plus(one) if len(values) > 1 else one
            for i, group in enumerate(found)
            for one in group
        ]
        for value in added:
            more = reading.read(value)
            if more is None:
                return []
            key = (node.id, "longer")
            texts = [Variant((), ((key, False),)).plus(one) for one in texts] + [
                whole
                for one, end in itertools.product(texts, more)
                if (whole := Variant((), ((key, True),)).plus(one).plus(end))
            ]
        self.used.add(node)
        return texts

    def _constant_of(self, node, module, name):
        if name in module.constants:
            reading = _Reading(Reader(module, self.reader.modules), (), self.depth, self.used, (*self.names, name))
            found = reading.read(module.constants[name])
            if found is not None:
                self.used.add(node)
            return found
        origin, known_as = module.imports.get(name, ("", ""))
        other = self.reader.modules.get(origin)
        return self._constant_of(node, other, known_as) if other else None


def _arguments(function):
    if isinstance(function, ast.Lambda):
        return set()
    spec = function.args
    every = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, spec.vararg, spec.kwarg]
    return {one.arg for one in every if one is not None}


def _stored(function, name, values):
    """Whether a name is bound in other ways too, such as by a loop."""
    stores = [
        n for n in own_nodes(function) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Store)
    ]
    longer = [n for n in own_nodes(function) if isinstance(n, ast.AugAssign) and getattr(n.target, "id", "") == name]
    return len(stores) != len(values) + len(longer)


def forms_of(variant):
    """The text in its forms for one and for several, where it has any; else none."""
    one, several = _formed(variant, 1), _formed(variant, 2)
    return [] if one == several else [one, several]


def _formed(variant, which):
    """A text with every `[one|several]` in it as its first (1) or second (2) form; holes may lie in a form."""
    holes = [part for part in variant.parts if isinstance(part, Hole)]
    marked = "".join(_MARK if isinstance(part, Hole) else part for part in variant.parts)
    count = itertools.count()
    numbered = re.sub(_MARK, lambda _: f"{_MARK}{next(count)}{_MARK}", marked)
    formed = _FORMS.sub(lambda forms: forms[which], numbered)
    pieces = re.split(f"{_MARK}(\\d+){_MARK}", formed)
    parts = [holes[int(piece)] if i % 2 else piece for i, piece in enumerate(pieces)]
    return Variant(tuple(part for part in parts if part != ""), variant.ways)


def fielded(variant, fields=_NAMED):
    """A text for `format` with its fields as holes; any other as it is."""
    parts, names = [], {}
    for part in variant.parts:
        parts += _fields(part, names) if isinstance(part, str) and fields.search(part) else [part]
    return Variant(tuple(part for part in parts if part != ""), variant.ways)


def _fields(text, names):
    pieces, parts = _FIELDS.split(text.replace("{{", "\1").replace("}}", "\2")), []
    for i, piece in enumerate(pieces):
        if i % 2:
            # A field without a name is another one each time.
            parts.append(names.setdefault(piece or f"#{i}", Hole(None)))
        else:
            parts.append(piece.replace("\1", "{").replace("\2", "}"))
    return parts
