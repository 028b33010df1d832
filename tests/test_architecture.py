"""The rules of the house, read from its sources: imports, abstract or final classes, exports, documentation, bounds."""

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import equinox as eqx
import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import scoresample
from scoresample.paths import AbstractNoiseProcess, AbstractScorePath
from scoresample.samplers import AbstractParticleSampler, AbstractSampler, available_samplers
from scoresample.scores import AbstractScore
from tests.cases import PATHS, PROCESSES, SAMPLERS, SCORES

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "scoresample"

ROOMS = ("scores", "paths", "checks", "samplers", "inference", "diagnostics", "report", "workflows", "cli")
WING = {
    "nn": {"scores", "paths"},
    "training": {"scores", "paths", "nn"},
    "wavelets": {"scores", "paths", "nn"},
}
"""The side wing, and what it sees."""
WING_VISITORS = {"workflows", "cli"}
"""Rooms that see the side wing."""
FREE = {"_version"}
"""What any room may import."""
LEAVES = {"testing", "interop"}
"""What sees every room up to the workflows and is imported by users only."""


def visible(room: str) -> set[str]:
    """The rooms that a room may import, without itself."""
    if room in WING:
        return WING[room] | FREE
    if room in LEAVES:
        return {*ROOMS, *WING, *FREE} - {"cli"}
    if room == "__main__":
        return {"cli"}
    if room == "__init__":
        return {*ROOMS, *WING, *FREE} - {"cli"}
    if room in FREE:
        return set()
    return {*ROOMS[: ROOMS.index(room)], *(WING if room in WING_VISITORS else ()), *FREE}


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def dotted(path: Path) -> tuple[str, ...]:
    """The module's name below `scoresample`: ("scores", "_base")."""
    return path.relative_to(PACKAGE).with_suffix("").parts


def imported(path: Path) -> Iterator[tuple[str, int]]:
    """Every name that a source imports, at its top or inside a function, as ``scoresample.room.module``."""
    package = ["scoresample", *dotted(path)[:-1]]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield module, node.lineno
            yield from ((f"{module}.{alias.name}", node.lineno) for alias in node.names)


def violations(path: Path) -> list[str]:
    parts = dotted(path)
    room = parts[0]
    found = []
    for name, line in imported(path):
        words = name.split(".")
        if words[0] != "scoresample":
            continue
        where = f"{path.relative_to(ROOT)}:{line} imports {name}"
        if len(words) == 1:
            siblings = [n for n, at in imported(path) if at == line and n != name]
            if not siblings:
                found.append(f"{where}: the package itself, so every room")
            continue
        other = words[1]
        if not (PACKAGE / other).is_dir() and not (PACKAGE / f"{other}.py").is_file():
            found.append(f"{where}: a name of the package itself, so every room")
        elif other != room and other not in visible(room):
            found.append(f"{where}: {room} does not see {other}")
        elif other != room and len(words) > 2 and words[2].startswith("_") and other not in FREE:
            found.append(f"{where}: a private module of another room")
    return found


def test_every_room_has_its_place() -> None:
    known = {*ROOMS, *WING, *FREE, *LEAVES, "__init__", "__main__"}
    assert {dotted(path)[0] for path in sources()} <= known


@pytest.mark.parametrize("path", sources(), ids=lambda path: ".".join(dotted(path)))
def test_rooms_import_only_what_they_see(path: Path) -> None:
    assert violations(path) == []


@pytest.mark.parametrize(
    ("place", "source"),
    [
        ("scores/_made_up.py", "from scoresample.paths import VP"),
        ("scores/_made_up.py", "def f():\n    from scoresample.inference import sample"),
        ("scores/_made_up.py", "import scoresample.samplers"),
        ("scores/_made_up.py", "import scoresample"),
        ("scores/_made_up.py", "from scoresample import paths"),
        ("scores/_made_up.py", "from scoresample import VP"),
        ("scores/_made_up.py", "from ..paths import VP"),
        ("samplers/_made_up.py", "from scoresample.paths._base import AbstractScorePath"),
        ("training/_made_up.py", "from scoresample.inference import Draws"),
        ("wavelets/_made_up.py", "from scoresample.samplers import ReverseSDE"),
        ("paths/_made_up.py", "from scoresample.wavelets import WaveletTransform"),
        ("inference/_made_up.py", "from scoresample.training import fit_score"),
        ("report/_made_up.py", "from scoresample.cli import main"),
    ],
)
def test_forbidden_imports_are_seen(place: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: source)
    assert violations(PACKAGE / place)


def test_modules_inside_a_room_are_private() -> None:
    for path in sources():
        if len(dotted(path)) > 1:
            assert path.stem.startswith("_"), path


def test_rooms_only_hand_names_on() -> None:
    for path in PACKAGE.glob("*/__init__.py"):
        for node in ast.parse(path.read_text(encoding="utf-8")).body[1:]:
            assert isinstance(node, ast.ImportFrom), f"{path}:{node.lineno} is no import"
            for alias in node.names:
                assert alias.asname == alias.name, f"{path}:{node.lineno} does not hand on {alias.name}"
                assert not alias.name.startswith("_"), f"{path}:{node.lineno} hands on a private name"


@cache
def modules() -> tuple[ModuleType, ...]:
    names = [m.name for m in pkgutil.walk_packages(scoresample.__path__, "scoresample.") if "__main__" not in m.name]
    return (scoresample, *(importlib.import_module(name) for name in names))


@cache
def equinox_classes() -> tuple[type[eqx.Module], ...]:
    """Every Equinox module class that the package defines."""
    found = {
        value: None
        for module in modules()
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, eqx.Module) and value.__module__.startswith("scoresample")
    }
    return tuple(found)


def is_abstract(cls: type) -> bool:
    return bool(
        getattr(cls, "__abstractmethods__", None)
        or getattr(cls, "__abstractvars__", None)
        or getattr(cls, "__abstractclassvars__", None)
    )


def own_methods(cls: type) -> set[str]:
    """The methods and properties in a class's own body; of the dunder methods only `__call__`."""
    return {
        name
        for name, value in vars(cls).items()
        if (callable(value) or isinstance(value, property | classmethod | staticmethod))
        and (name == "__call__" or not name.startswith(("__", "_abc")))
        and name not in getattr(cls, "__dataclass_fields__", {})
    }


def test_there_are_classes_to_look_at() -> None:
    assert len(equinox_classes()) > 25
    assert is_abstract(AbstractScore)
    assert not is_abstract(scoresample.Gaussian)
    assert "logdensity" in own_methods(scoresample.Gaussian)
    assert "__call__" in own_methods(AbstractScore)


@pytest.mark.parametrize("cls", equinox_classes(), ids=lambda cls: cls.__name__)
def test_classes_are_abstract_or_final(cls: type[eqx.Module]) -> None:
    says_abstract = cls.__name__.lstrip("_").startswith("Abstract")
    assert is_abstract(cls) == says_abstract, "a class is abstract if and only if its name says so"
    bases = [base for base in cls.__mro__[1:] if base in equinox_classes()]
    final = [base.__name__ for base in bases if not is_abstract(base)]
    assert final == [], "final classes are not subclassed"
    for base in bases:
        abstract = getattr(base, "__abstractmethods__", frozenset())
        concrete = {name for name in own_methods(base) if name not in abstract}
        overridden = sorted(concrete & own_methods(cls))
        assert overridden == [], f"concrete methods of {base.__name__} are overridden"


def public_names() -> list[str]:
    import_hook = {"jaxtyping"}  # which checks types while tests run, and leaves its name in every module
    submodules = {*ROOMS, *WING, *LEAVES, *FREE, *import_hook}
    return sorted(n for n in vars(scoresample) if not n.startswith("__") and n not in submodules)


def test_the_package_exports_what_its_init_hands_on() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    handed_on = []
    for node in tree.body[1:]:
        assert isinstance(node, ast.ImportFrom), f"line {node.lineno} of scoresample/__init__.py is no import"
        assert len(node.names) == 1, f"line {node.lineno} of scoresample/__init__.py: one line each"
        assert node.names[0].asname == node.names[0].name
        handed_on.append(node.names[0].name)
    assert len(set(handed_on)) == len(handed_on)
    assert public_names() == sorted(n for n in handed_on if n != "__version__")
    assert not [name for name in public_names() if name.startswith("_")]


@pytest.mark.parametrize("name", public_names())
def test_public_names_are_documented(name: str) -> None:
    value = getattr(scoresample, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert name in vars(importlib.import_module(value.__module__.rsplit("._", 1)[0])), "its room hands it on too"
    assert value.__doc__, f"{name} has no docstring"
    if inspect.isclass(value):
        bare = [
            f"{name}.{method}"
            for method, function in vars(value).items()
            if not method.startswith("_") and inspect.isfunction(function) and not inspect.getdoc(function)
        ]
        assert bare == []


@cache
def documented_symbols() -> set[str]:
    pages = [page.read_text(encoding="utf-8") for page in sorted((ROOT / "docs" / "api").glob("*.md"))]
    return {name for page in pages for name in re.findall(r"^:{3} ([\w.]+)$", page, flags=re.MULTILINE)}


@pytest.mark.parametrize("name", [*public_names(), *(f"testing.check_{what}" for what in ("score", "path", "sampler"))])
def test_public_names_have_a_place_in_the_api_pages(name: str) -> None:
    assert f"scoresample.{name}" in documented_symbols(), f"write `::: scoresample.{name}` on a page in docs/api"


def test_api_pages_name_only_what_exists() -> None:
    for name in documented_symbols():
        words = name.split(".")
        for cut in range(len(words) - 1, 0, -1):
            try:
                value = importlib.import_module(".".join(words[:cut]))
            except ModuleNotFoundError:
                continue
            for word in words[cut:]:
                value = getattr(value, word)
            break


CASED = {
    AbstractScore: SCORES,
    AbstractScorePath: PATHS,
    AbstractNoiseProcess: PROCESSES,
    AbstractSampler: SAMPLERS,
    AbstractParticleSampler: SAMPLERS,
}


def public_final_classes() -> list[tuple[type, type]]:
    """Every final class that a room hands on, with the contract that it keeps."""
    handed_on = {
        value: None
        for room in ("scores", "paths", "samplers", "wavelets")
        for value in vars(importlib.import_module(f"scoresample.{room}")).values()
        if inspect.isclass(value) and issubclass(value, tuple(CASED)) and not is_abstract(value)
    }
    return [(cls, next(base for base in CASED if issubclass(cls, base))) for cls in handed_on]


@cache
def made_classes(contract: type) -> set[type]:
    return {type(make()) for make in CASED[contract].values()}


@pytest.mark.parametrize(("cls", "contract"), public_final_classes(), ids=lambda cls: cls.__name__)
def test_every_public_class_has_a_case(cls: type, contract: type) -> None:
    assert cls in made_classes(contract), f"add a row for {cls.__name__} to tests/cases.py"


def test_samplers_by_name_are_the_public_classes() -> None:
    classes = [cls for cls, contract in public_final_classes() if CASED[contract] is SAMPLERS]
    assert set(available_samplers().values()) == set(classes)
    assert all(getattr(scoresample, cls.__name__) is cls for cls in classes)
    assert len({cls.name for cls in available_samplers().values()}) == len(classes)
    for cls in available_samplers().values():
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", cls.name)
        assert cls.reference


def test_the_command_line_lists_every_sampler(capsys: pytest.CaptureFixture[str]) -> None:
    from scoresample.cli import main

    assert main(["samplers"]) == 0
    rows = capsys.readouterr().out.splitlines()[1:]
    assert [row.split()[0] for row in rows] == list(available_samplers())
    for row, cls in zip(rows, available_samplers().values(), strict=True):
        assert row.endswith(cls.reference)


def test_the_documentation_lists_every_sampler() -> None:
    """Its table is made from the classes while the pages are built, where they carry a marker."""
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs" / "hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    rows = [re.findall(r"`([^`]+)`", row)[:2] for row in hooks.samplers_table("../").splitlines()[2:]]
    assert rows == [[name, cls.__name__] for name, cls in available_samplers().items()]
    for page in ("guides/choosing-a-sampler.md", "api/samplers.md"):
        assert hooks.MARKER in (ROOT / "docs" / page).read_text(encoding="utf-8")


def requirements() -> dict[str, list[Requirement]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(line) for line in lines] for extra, lines in lists.items()}


def pins(name: str) -> dict[str, Version]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    found = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    return {canonical(pin.name): Version(next(iter(pin.specifier)).version) for pin in found}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def lower_bound(requirement: Requirement) -> Version:
    bounds = [Version(part.version) for part in requirement.specifier if part.operator == ">="]
    assert len(bounds) == 1, f"{requirement} needs one lower bound"
    return bounds[0]


def test_lower_bounds_are_the_versions_that_are_tested() -> None:
    lowest = pins("constraints-lowest.txt")
    for requirement in requirements()[""]:
        assert lower_bound(requirement) == lowest[canonical(requirement.name)], requirement
    for requirement in requirements()["test"]:
        assert lower_bound(requirement) <= lowest[canonical(requirement.name)], requirement


def test_extras_agree_on_their_bounds() -> None:
    bounds: dict[str, Version] = {}
    for requirement in (one for many in requirements().values() for one in many):
        name = canonical(requirement.name)
        assert lower_bound(requirement) == bounds.setdefault(name, lower_bound(requirement)), requirement


def test_pinned_versions_satisfy_the_bounds() -> None:
    newest = pins("constraints.txt")
    for requirement in (one for extra in ("", "test", "docs") for one in requirements()[extra]):
        assert newest[canonical(requirement.name)] in requirement.specifier, requirement


_UNWANTED = {
    "a data folder": r"\.\./shared|(?<![\w.])/(?:work|data|home|root|mnt)/",
    "a package registry": r"(?:pypi|anaconda|conda)\.org|--(?:extra-)?index-url|registry\.\w+\.\w+|proxy\.golang",
}


@pytest.mark.parametrize("what", list(_UNWANTED))
def test_sources_name_neither_data_folders_nor_registries(what: str) -> None:
    folders = [PACKAGE, ROOT / "tests", ROOT / "examples"]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    files += [ROOT / name for name in ("pyproject.toml", "Makefile", "constraints.txt", "constraints-lowest.txt")]
    here = Path(__file__)
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in files
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if path != here and re.search(_UNWANTED[what], line)
    ]
    assert found == []
