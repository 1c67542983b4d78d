"""The set-up cell where the notebook is alone, as on Colab, and what it installs there."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import nbformat
import pytest
import torch
from ipykernel.kernelspec import make_ipkernel_cmd
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

from dlapps import requirements

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "1_transfer_learning"
VERSIONS = (
    "import torch, numpy, dlapps; print(torch.__version__, numpy.__version__, dlapps.__file__)"
)


def clean_environment():
    """Return the environment without what would make dlapps importable or redirect git."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "GIT_", "DLAPPS_")
    return {k: v for k, v in os.environ.items() if not k.startswith(hidden)}


def git(*arguments, folder):
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    command = ["git", *identity, "-c", "commit.gpgsign=false", *arguments]
    done = subprocess.run(
        command, cwd=folder, env=clean_environment(), check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """Return (folder, commit) of a repository with what the set-up cell needs of this one.

    Files that git would ignore are not in it, and the commit is not the newest one.
    """
    folder = tmp_path_factory.mktemp("origin")
    shutil.copytree(
        ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
    )
    for name in ("requirements.txt", "pyproject.toml", ".gitignore"):
        shutil.copy(ROOT / name, folder)
    git("init", "--quiet", folder=folder)
    git("config", "uploadpack.allowAnySHA1InWant", "true", folder=folder)  # as GitHub does
    git("add", ".", folder=folder)
    git("commit", "--quiet", "-m", "The commit that the badge names", folder=folder)
    commit = git("rev-parse", "HEAD", folder=folder)
    git("commit", "--quiet", "--allow-empty", "-m", "A later one", folder=folder)
    return folder, commit


@pytest.fixture(scope="module")
def fresh_python(tmp_path_factory):
    """Return a new environment's Python that has PyTorch and the rest, like Colab's, not dlapps.

    As on Colab, `google.colab` is imported before the first cell.
    """
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=os.name != "nt")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    show = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = subprocess.run([python, "-c", show], check=True, capture_output=True, text=True)
    packages = Path(packages.stdout.strip())
    colab = packages / "google" / "colab"
    colab.mkdir(parents=True)
    (colab / "__init__.py").touch()
    # A path in a .pth file is added as it is: the .pth files in that folder, such as an editable
    # installation of dlapps, count for nothing.
    paths = {sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")}
    (packages / "like_colab.pth").write_text("\n".join([*paths, "import google.colab"]))
    find = "import importlib.util as u; print(u.find_spec('dlapps'), u.find_spec('torch').name)"
    found = subprocess.run(
        [python, "-c", find],
        cwd=folder,
        env=clean_environment(),
        check=True,
        capture_output=True,
        text=True,
    )
    assert found.stdout.split() == ["None", "torch"]
    return python


def set_up_cell(**replacements):
    """Return the committed set-up cell with other values of its constants."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{NOTEBOOK}.ipynb", as_version=4)
    source = next(cell.source for cell in notebook.cells if "REPOSITORY =" in cell.source)
    for name, value in replacements.items():
        source, count = re.subn(
            rf"(?m)^{name} = .*$", lambda _, n=name, v=value: f"{n} = {v!r}", source
        )
        assert count == 1
    return source


def run_cells(python, folder, *sources, **settings):
    """Run cells in a kernel of `python` in `folder`; return what each of them printed."""

    class Fresh(KernelSpecManager):
        def get_kernel_spec(self, kernel_name):
            argv = make_ipkernel_cmd(executable=str(python))
            return KernelSpec(argv=argv, language="python", display_name=kernel_name)

    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, km=AsyncKernelManager(kernel_spec_manager=Fresh()))
    client.extra_arguments = ["--log-level=ERROR"]
    client.owns_km = True
    client.execute(cwd=str(folder), env={**clean_environment(), **settings})
    return ["".join(out.get("text", "") for out in cell.outputs) for cell in notebook.cells]


def test_alone_it_fetches_the_very_commit_and_changes_no_version(fresh_python, origin, tmp_path):
    repository, commit = origin
    unfinished = tmp_path / f"deep-learning-applications-{commit}.unfinished"
    (unfinished / ".git").mkdir(parents=True)
    (unfinished / ".git" / "index.lock").touch()  # an earlier run was cut off
    (tmp_path / "dlapps").mkdir()  # a folder of that name is importable, but is not the package
    set_up = set_up_cell(REPOSITORY=repository.as_uri(), REVISION=commit)

    first, versions, again = run_cells(fresh_python, tmp_path, set_up, VERSIONS, set_up)

    clone = tmp_path / f"deep-learning-applications-{commit}"
    assert git("rev-parse", "HEAD", folder=clone) == commit
    assert git("status", "--porcelain", folder=clone) == ""
    assert not unfinished.exists()
    numpy_version = importlib.metadata.version("numpy")
    file = clone / "src" / "dlapps" / "__init__.py"
    assert versions.split() == [torch.__version__, numpy_version, str(file)]
    assert "Requirements: all there." in first
    assert NOTEBOOK in first and f"torch {torch.__version__}" in first
    if not torch.cuda.is_available():
        assert "No GPU is attached" in first and "Change runtime type" in first
    assert again == first

    # After a restart of the kernel the clone is there, and the network is not needed.
    set_up = set_up_cell(REPOSITORY=(tmp_path / "nowhere").as_uri(), REVISION=commit)
    assert run_cells(fresh_python, tmp_path, set_up) == [first]


def test_alone_it_fetches_a_branch(fresh_python, origin, tmp_path):
    repository, _ = origin
    git("branch", "--force", "feature/one", folder=repository)
    set_up = set_up_cell(REPOSITORY=repository.as_uri(), REVISION="feature/one")
    run_cells(fresh_python, tmp_path, set_up)
    clone = tmp_path / "deep-learning-applications-feature" / "one"
    assert git("rev-parse", "HEAD", folder=clone) == git("rev-parse", "HEAD", folder=repository)


def test_failed_fetch_says_so_and_leaves_nothing_to_import(fresh_python, tmp_path):
    set_up = set_up_cell(REPOSITORY=(tmp_path / "nowhere").as_uri())
    with pytest.raises(Exception, match="'fetch'"):
        run_cells(fresh_python, tmp_path, set_up)
    assert not list(tmp_path.rglob("dlapps"))


def test_in_the_repository_from_any_folder(fresh_python):
    folder = ROOT / "src" / "dlapps" / "models"
    before = set(folder.iterdir())
    _, versions = run_cells(fresh_python, folder, set_up_cell(), VERSIONS)
    assert versions.split()[2] == str(ROOT / "src" / "dlapps" / "__init__.py")
    assert {path.name for path in set(folder.iterdir()) - before} <= {"__pycache__"}


def test_outside_with_dlapps_installed(fresh_python, tmp_path):
    path = str(ROOT / "src")
    _, versions = run_cells(fresh_python, tmp_path, set_up_cell(), VERSIONS, PYTHONPATH=path)
    assert versions.split()[2] == str(ROOT / "src" / "dlapps" / "__init__.py")
    assert list(tmp_path.iterdir()) == []


class Pip:
    """Stands in for pip: records its arguments and the constraints it was given."""

    def __init__(self, monkeypatch, installed, returncode=0):
        self.calls, self.constraints, self.returncode = [], [], returncode

        def version(name):
            if name not in installed:
                raise importlib.metadata.PackageNotFoundError(name)
            return installed[name]

        monkeypatch.setattr(requirements.metadata, "version", version)
        monkeypatch.setattr(requirements.subprocess, "run", self)

    def __call__(self, command, **_):
        self.calls.append(command)
        constraints = Path(command[command.index("--constraint") + 1])
        self.constraints = constraints.read_text("utf-8").split()
        return subprocess.CompletedProcess(command, self.returncode, "", "no such package")


@pytest.fixture
def wanted(tmp_path):
    file = tmp_path / "requirements.txt"
    lines = ["# a comment", "", "torch>=2.4", "numpy>=1.24  # why", "mlxtend>=0.23"]
    file.write_text("\n".join([*lines, "ancient>=1; python_version < '3'"]), encoding="utf-8")
    return file


COLAB = {"torch": "2.6.0+cu124", "numpy": "2.0.2"}


def test_nothing_missing_calls_no_pip(monkeypatch, wanted, capsys):
    pip = Pip(monkeypatch, {**COLAB, "mlxtend": "0.23.4"})
    requirements.install_missing(wanted)
    assert pip.calls == []
    assert capsys.readouterr().out == "Requirements: all there.\n"


@pytest.mark.parametrize("installed", [COLAB, {**COLAB, "mlxtend": "0.22.0"}])
def test_missing_or_old_is_installed_and_the_rest_is_held(monkeypatch, wanted, installed, capsys):
    pip = Pip(monkeypatch, installed)
    requirements.install_missing(wanted)
    (command,) = pip.calls
    assert command[:4] == [sys.executable, "-m", "pip", "install"]
    assert [part for part in command if ">=" in part] == ["mlxtend>=0.23"]
    assert pip.constraints == ["torch==2.6.0+cu124", "numpy==2.0.2"]
    assert capsys.readouterr().out == "Requirements: installing mlxtend>=0.23 ...\n"


def test_pip_that_fails_is_quoted(monkeypatch, wanted):
    Pip(monkeypatch, COLAB, returncode=1)
    with pytest.raises(RuntimeError, match=r"mlxtend(?s:.)*no such package"):
        requirements.install_missing(wanted)
