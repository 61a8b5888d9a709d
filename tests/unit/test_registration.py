# Copyright (C) 2026 The anomalib-logic authors
# SPDX-License-Identifier: Apache-2.0

import importlib
import subprocess
import sys
import venv
from pathlib import Path

import anomalib.data
import pytest
from anomalib.data import get_datamodule
from anomalib.models import get_model, list_models

import anomalib_logic.data
import anomalib_logic.metrics
import anomalib_logic.models
from anomalib_logic import autoload, registration

BACKBONE = {"backbone": "mobilenetv2_035", "pre_trained": False}
MODELS = {
    "Glcf": {**BACKBONE, "depth": 1, "width": 48},
    "Lgfdr": {**BACKBONE, "width": 32},
    "SamLad": {**BACKBONE, "objects": "cluster"},
}


def test_these_are_all_models_of_the_package():
    assert set(MODELS) == set(anomalib_logic.models.__all__)


@pytest.mark.parametrize("name", MODELS)
def test_model_is_found_by_its_short_name_and_listed(name):
    short = {"SamLad": "sam_lad"}.get(name, name.lower())
    assert type(get_model(short, **MODELS[name])) is getattr(anomalib_logic, name)
    assert short in list_models()


@pytest.mark.parametrize("name", MODELS)
def test_model_is_found_by_its_class_path(name):
    model = get_model({"class_path": f"anomalib_logic.{name}", "init_args": MODELS[name]})
    assert type(model) is getattr(anomalib_logic, name)
    assert model.hparams["backbone"] == "mobilenetv2_035"


@pytest.mark.parametrize("name", ["MVTecLoco", "DigitAnatomy", "LocoScenes"])
def test_data_module_is_found_by_its_class_path(name, tmp_path):
    (tmp_path / "breakfast_box").mkdir()
    config = {"class_path": f"anomalib_logic.{name}", "init_args": {"root": str(tmp_path)}}
    assert type(get_datamodule(config)) is getattr(anomalib_logic, name)


def test_name_that_anomalib_has_is_a_warning_and_stays_anomalibs(monkeypatch):
    theirs = type("MVTecLoco", (), {})
    monkeypatch.setattr(anomalib.data, "MVTecLoco", theirs)
    with pytest.warns(UserWarning, match=r"anomalib\.data\.MVTecLoco is taken"):
        registration.register()
    assert anomalib.data.MVTecLoco is theirs


def test_import_alone_loads_neither_torch_nor_the_rest_of_anomalib():
    heavy = "[m for m in ('torch', 'lightning', 'anomalib.data', 'anomalib.models') if m in sys.modules]"
    program = f"import sys, anomalib, anomalib_logic; print({heavy}, sorted(anomalib_logic.__all__))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output.strip() == f"[] {sorted(anomalib_logic.__all__)}"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A package ``host_package`` whose module ``models`` stands for Anomalib's, and the list of registrations."""
    package = tmp_path / "host_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "models.py").write_text("READY = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setattr(registration, "MODELS", "host_package.models")
    registered = []
    monkeypatch.setattr(registration, "register", lambda: registered.append(sys.modules["host_package.models"].READY))
    yield registered
    for name in [n for n in sys.modules if n.split(".")[0] == "host_package"]:
        del sys.modules[name]


def test_registers_once_right_after_the_models_are_imported(host):
    registration.register_with_anomalib()
    importlib.import_module("host_package")
    assert host == []
    importlib.import_module("host_package.models")
    importlib.import_module("host_package.models")
    assert host == [True]


def test_registers_at_once_if_the_models_are_there(host):
    importlib.import_module("host_package.models")
    registration.register_with_anomalib()
    assert host == [True]


def test_import_system_and_module_are_as_before_once_registered(host):
    before = list(sys.meta_path)
    registration.register_with_anomalib()
    module = importlib.import_module("host_package.models")
    assert sys.meta_path == before
    assert "exec_module" not in vars(module.__loader__)
    assert importlib.reload(module) is module
    assert host == [True]


def test_absent_models_are_still_an_import_error(host, monkeypatch):
    monkeypatch.setattr(registration, "MODELS", "host_package.absent")
    registration.register_with_anomalib()
    with pytest.raises(ModuleNotFoundError, match=r"host_package\.absent"):
        importlib.import_module("host_package.absent")


@pytest.fixture
def other_environment(tmp_path):
    """Run a program in an empty virtual environment that sees the packages of this one, but not its start-up files."""
    venv.create(tmp_path / "environment")
    python = str(tmp_path / "environment" / ("Scripts" if sys.platform == "win32" else "bin") / "python")

    def run(*arguments: str, status: int = 0) -> str:
        result = subprocess.run([python, *arguments], capture_output=True, text=True)
        assert result.returncode == status, result.stderr
        assert not result.stderr
        return result.stdout.strip()

    folder = run("-c", "import sysconfig; print(sysconfig.get_path('purelib'))")
    paths = [str(Path(anomalib_logic.__file__).parents[1]), *filter(None, sys.path)]
    Path(folder, "a_paths.pth").write_text("\n".join(paths))
    return run


def test_autoload_is_off_until_it_is_installed_and_after_it_is_removed(other_environment):
    loaded = ("-c", "import sys; print('anomalib_logic' in sys.modules)")
    command = ("-m", "anomalib_logic.autoload")
    assert other_environment(*loaded) == "False"
    assert other_environment(*command, "status", status=1).startswith("not installed: ")
    assert other_environment(*command, "install").startswith("installed: ")
    assert other_environment(*command, "status").startswith("installed: ")
    assert other_environment(*loaded) == "True"
    assert other_environment(*command, "remove").startswith("not installed: ")
    assert other_environment(*loaded) == "False"


def test_autoload_line_does_nothing_without_the_package():
    result = subprocess.run([sys.executable, "-I", "-S", "-c", autoload.LINE], capture_output=True, check=True)
    assert result.stderr == b""


def test_autoload_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(autoload, "hook_file", lambda: tmp_path / "absent" / autoload.NAME)
    assert autoload.main(["install"]) == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}/absent/{autoload.NAME}: No such file or directory; ")


@pytest.mark.parametrize("package", [anomalib_logic, anomalib_logic.data, anomalib_logic.metrics])
def test_every_public_name_is_there(package):
    assert set(package.__all__) <= set(dir(package))
    assert all(hasattr(package, name) for name in package.__all__)


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'anomalib_logic' has no attribute 'Missing'"):
        _ = anomalib_logic.Missing
