"""Torch's compiler, left out where it is asked for trifles: it takes longer to load than timm.

The compiler (`torch._dynamo`, with sympy) is loaded by torchvision's `roi_align`, which asks it for
a function; by timm's NaFlexViT, which marks methods that are not to be compiled; and by torch's
optimisers, which do the same and tell it where a graph ends. None of that says anything where
nothing is compiled. So while such things happen, a module with these few functions stands for it.
Whatever else is asked of the compiler loads it at once.
"""

import functools
import importlib
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
HELPERS = "torch._dynamo.utils"


def _is_loaded() -> bool:
    return not isinstance(sys.modules.get(COMPILER), _StandIn | None)


def _is_compile_supported(device_type: str) -> bool:
    supported: bool = importlib.import_module(HELPERS).is_compile_supported(device_type)
    return supported


def _graph_break(*_args: Any, **_named: Any) -> None:
    """Do nothing, as torch's own does where it is not traced."""


def _disable(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
    """Return a function that the compiler leaves alone, as `torch._dynamo.disable` does."""

    @functools.cache
    def disabled() -> Callable[..., Any]:
        compiler = importlib.import_module(COMPILER)
        made: Callable[..., Any] = compiler.disable(function, *args, **options)
        return made

    @functools.wraps(function)
    def call(*own: Any, **named: Any) -> Any:
        return (disabled() if _is_loaded() else function)(*own, **named)

    return call


class _StandIn(ModuleType):
    """Stands for a module of the compiler until something else is asked of it."""

    def __init__(self, name: str, **functions: Callable[..., Any]) -> None:
        super().__init__(name)
        vars(self).update(functions)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


_STAND_INS = {
    COMPILER: _StandIn(COMPILER, disable=_disable, graph_break=_graph_break),
    HELPERS: _StandIn(HELPERS, is_compile_supported=_is_compile_supported),
}


def _remove_stand_ins() -> None:
    for name, module in _STAND_INS.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]


@contextmanager
def without_compiler() -> Iterator[None]:
    """Leave torch's compiler unloaded within a block that asks it for nothing but trifles.

    Not to be wrapped around more than that: what imports another part of it would fail.
    """
    if COMPILER in sys.modules:
        yield
        return
    sys.modules.update(_STAND_INS)
    try:
        yield
    finally:
        _remove_stand_ins()


with without_compiler():
    import timm
    from timm.layers import convert_sync_batchnorm

__all__ = ["convert_sync_batchnorm", "timm", "without_compiler"]
