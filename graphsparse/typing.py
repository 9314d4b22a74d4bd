"""Type aliases, and the one place that looks for optional packages.

An optional package is imported once, here; when that fails, the reason is kept so that :func:`backends` and every
error can repeat it. Nothing else in the package imports one.
"""

import importlib
import platform
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

#: One score per column of ``edge_index``, from ``(edge_index, num_nodes)``; the lowest scores are pruned first.
EdgeScore: TypeAlias = Callable[[Tensor, int], Tensor]
#: Builds a fresh model, so that a recipe can start twice from the same weights.
MakeModel: TypeAlias = Callable[[], nn.Module]
#: Receives numbers from long work, one dictionary per step.
Log: TypeAlias = Callable[[dict[str, float]], None]

# name -> how to get it
_OPTIONAL = {
    "torch_sparse": "pip install --no-build-isolation torch-scatter==2.1.2 torch-sparse==0.6.18",
    "torch_scatter": "pip install --no-build-isolation torch-scatter==2.1.2",
    "pyg_lib": "see https://github.com/pyg-team/pyg-lib",
    "numba": "pip install 'graphsparse[cpu]'",
    "matplotlib": "pip install 'graphsparse[plot]'",
    "ray": "pip install 'graphsparse[ray]'",
}


@cache
def _find(name: str) -> ModuleType | str:
    """Import an optional package once; a string is the reason why it cannot be used."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name == name.partition(".")[0]:
            return "not installed"
        return f"broken: {error}"
    except Exception as error:  # an extension built against another torch raises OSError, AttributeError, ...
        return f"broken: {type(error).__name__}: {error}"


def optional_module(name: str) -> Any:
    """Return an optional package, or raise an error that says why it cannot be used.

    Args:
        name: Import name of a package listed by :func:`backends`, or of a module inside one.

    Raises:
        ImportError: If the package is missing or does not load; the message holds the reason and the remedy.
    """
    found = _find(name)
    if isinstance(found, str):
        raise ImportError(f"'{name}' is needed here but {found}; to get it: {_OPTIONAL[name.partition('.')[0]]}")
    return found


def has_module(name: str) -> bool:
    """Whether an optional package can be used."""
    return not isinstance(_find(name), str)


@cache
def onednn_linear() -> Callable[..., Tensor] | str:
    """Return oneDNN's linear layer if it is the faster one on this processor, else the reason why it is not used.

    MKL is as fast on the processors of its maker, and keeps to AVX2 on those of others.
    """
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return "not in this build of torch"
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return "not needed: this build of torch does without MKL"
    if "AuthenticAMD" not in _processor():
        return "not needed: MKL is fast on this processor"
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        return "not needed: MKL is as fast without AVX-512"
    # It is not a public operation of torch; what torch.compile makes of linear layers on CPU rests on it.
    found: Callable[..., Tensor] | None = getattr(torch.ops.mkldnn, "_linear_pointwise", None)
    return "not in this build of torch" if found is None else found


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    return info.read_text() if info.is_file() else platform.processor()


def _onednn_version() -> str:
    found = re.search(r"MKL-DNN v([\d.]+)", torch.__config__.show())
    return found[1] if found else "1 or later"


def backends() -> dict[str, str]:
    """Report each optional package, and oneDNN within torch: its active version, or why it is not used.

    Returns:
        A dictionary from import name to version or reason.

    Example:
        >>> import graphsparse
        >>> sorted(graphsparse.backends())
        ['matplotlib', 'numba', 'onednn', 'pyg_lib', 'ray', 'torch_scatter', 'torch_sparse']
    """
    onednn = onednn_linear()
    report = {"onednn": onednn if isinstance(onednn, str) else _onednn_version()}
    for name in _OPTIONAL:
        found = _find(name)
        report[name] = found if isinstance(found, str) else str(getattr(found, "__version__", "unknown version"))
    return report
