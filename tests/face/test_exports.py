"""The public names: sorted, documented, typed, and all that the documents promise."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import turbopool
from turbopool import config, errors

ROOT = Path(turbopool.__file__).parent
PROMISED = {
    "Client", "ClientFactory", "ClientOptions", "Http1Options", "Http2Options", "Http3Options", "ReconnectOptions",
    "Request", "Response", "ResponseFuture", "HttpVersion", "VersionPolicy", "Timeout", "Headers",
    "PoolFull", "ClientDisposed", "DeadlineExceeded", "LimitExceeded", "UnsupportedVersion", "InvalidRequest",
    "ManagerCrashed", "DnsError", "TlsError", "TlsVerifyError", "ProxyError", "IncompleteRead", "TurboPoolError",
    "ConnectError", "ConnectTimeout", "PoolTimeout", "ReadTimeout", "WriteTimeout", "RemoteProtocolError",
}  # fmt: skip


@pytest.mark.parametrize("module", [turbopool, config])
def test_names_are_sorted_and_there(module: ModuleType) -> None:
    assert module.__all__ == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    assert all(hasattr(module, name) for name in module.__all__)


def test_all_that_is_promised_is_exported() -> None:
    assert set(turbopool.__all__) >= PROMISED


def test_every_error_is_exported() -> None:
    ours = {
        name for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, errors.TurboPoolError)
    }

    assert set(turbopool.__all__) >= ours


def test_nothing_else_is_left_lying_about() -> None:
    public = {
        name for name, value in vars(turbopool).items() if not name.startswith("_") and not inspect.ismodule(value)
    }

    assert public - set(turbopool.__all__) == {"annotations"}


CLASSES = [getattr(turbopool, name) for name in turbopool.__all__ if inspect.isclass(getattr(turbopool, name))]


@pytest.mark.parametrize("exported", CLASSES, ids=lambda kind: kind.__name__)
def test_every_public_name_is_documented(exported: type) -> None:
    assert inspect.getdoc(exported)
    for name, member in vars(exported).items():
        if not name.startswith("_") and (inspect.isfunction(member) or isinstance(member, property | classmethod)):
            assert inspect.getdoc(getattr(exported, name) if isinstance(member, classmethod) else member), name


@pytest.mark.parametrize("exported", CLASSES, ids=lambda kind: kind.__name__)
def test_every_public_method_is_typed(exported: type) -> None:
    for name, member in vars(exported).items():
        function = member.__func__ if isinstance(member, classmethod | staticmethod) else member
        if name.startswith("_") or not inspect.isfunction(function) or exported.__module__.split(".")[0] != "turbopool":
            continue
        signature = inspect.signature(function)
        assert signature.return_annotation is not inspect.Signature.empty, name
        for parameter in list(signature.parameters.values())[1:]:
            assert parameter.annotation is not inspect.Parameter.empty, (name, parameter.name)


def test_errors_stand_in_the_table_of_the_documents() -> None:
    table = (ROOT.parent / "docs" / "errors.md").read_text()

    named = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))

    assert named == {name for name in turbopool.__all__ if name in vars(errors)} - {"TurboPoolError"}


def test_options_stand_in_the_table_of_the_documents() -> None:
    table = (ROOT.parent / "docs" / "options.md").read_text()

    missing = [name for name in turbopool.ClientOptions.__dataclass_fields__ if f"`{name}" not in table]

    assert missing == []


def test_the_package_says_that_it_is_typed_and_which_version_it_is() -> None:
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]

    assert (ROOT / "py.typed").exists()
    assert project["name"] == "turbopool"
    assert re.fullmatch(r"\d+\.\d+\.\d+\S*", turbopool.__version__)
