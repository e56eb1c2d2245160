"""What is shipped: the wheel, the locks, the layout, and the one import rule that import-linter cannot express."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("engine", "events", "migrations", "projections")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel built from a copy of the tree, so that neither build/ nor the checkout is touched."""
    copy = tmp_path_factory.mktemp("tree") / "relight"
    copy.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    for name in (*FOLDERS, "src"):
        skip = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=skip)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "out", str(copy)]
    built = subprocess.run(command, cwd=copy.parent, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    [path] = (copy.parent / "out").glob("*.whl")
    return ZipFile(path).namelist()


def test_the_wheel_holds_every_file_of_the_package(wheel: list[str]) -> None:
    shipped = {".py", ".sql", ".toml", ".html", ".css", ".js", ".svg"}
    ours = {f"relight/{file.relative_to(ROOT)}" for name in FOLDERS for file in (ROOT / name).rglob("*.*")}
    assert {name for name in ours if Path(name).suffix in shipped} <= set(wheel)
    assert {"relight/__init__.py", "relight/py.typed"} <= set(wheel)


def test_the_wheel_takes_no_generic_name_at_the_top(wheel: list[str]) -> None:
    assert {name.split("/")[0] for name in wheel} == {"relight", "relight-0.1.0.dist-info"}


def test_the_wheel_brings_the_licence_and_the_command(wheel: list[str]) -> None:
    assert "relight-0.1.0.dist-info/licenses/LICENSE" in wheel
    assert "relight-0.1.0.dist-info/entry_points.txt" in wheel


def test_src_relight_holds_links_and_the_public_api_only() -> None:
    found = {path.name: path for path in (ROOT / "src" / "relight").iterdir() if path.name != "__pycache__"}
    assert set(found) == {"__init__.py", "py.typed", *FOLDERS}
    for name in FOLDERS:
        assert str(found[name].readlink()) == f"../../{name}"


def test_every_folder_with_python_files_is_a_package() -> None:
    holding = {file.parent for name in FOLDERS for file in (ROOT / name).rglob("*.py")}
    assert [folder for folder in holding if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("name", ["base.txt", "dev.txt"])
def test_a_lock_pins_by_hash_and_names_no_address(name: str) -> None:
    lock = (ROOT / "requirements" / name).read_text()
    assert not re.search(r"://|^\s*-[^-]|^--|@ |(?<![\w.])/\w", lock, re.MULTILINE)
    pins = re.split(r"\n(?=\w)", re.sub(r"^#.*\n", "", lock, flags=re.MULTILINE))
    assert [pin for pin in pins if not re.match(r"[\w-]+==[\w.]+.*\\\n    --hash=sha256:", pin)] == []


def test_the_base_lock_is_a_part_of_the_dev_lock() -> None:
    base, dev = (
        set(re.findall(r"^[\w-]+==[\w.]+", (ROOT / "requirements" / name).read_text(), re.MULTILINE))
        for name in ("base.txt", "dev.txt")
    )
    assert base < dev
    assert {"setuptools", "wheel"} <= {pin.partition("==")[0] for pin in base}


def test_a_projection_reads_only_the_events_of_its_own_subsystem() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    exempt = {line.split(" -> ")[1] for contract in contracts for line in contract.get("ignore_imports", ())}
    graph = grimp.build_graph("relight", cache_dir=None)
    subsystems = {name.rpartition(".")[2] for name in graph.find_children("relight.events") - exempt}
    strayed = [
        f"{importer} -> {imported}"
        for importer in graph.find_children("relight.projections") - exempt
        for imported in graph.find_modules_directly_imported_by(importer)
        if imported in graph.find_children("relight.events") - exempt
        and (stem := importer.rpartition(".")[2]) in subsystems
        and imported != f"relight.events.{stem}"
    ]
    assert strayed == []
