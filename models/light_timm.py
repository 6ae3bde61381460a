"""timm, imported without torch's compiler, which takes longer to load than timm itself.

The compiler (`torch._dynamo`, with sympy) is loaded for two trifles: torchvision's `roi_align` asks
it for a function, and timm's NaFlexViT marks methods that are not to be compiled. Nothing here uses
either. So while timm is imported, these two are stood in for; the stand-ins load the compiler when
they are called. Whatever else is asked of the compiler loads it at once.
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


def _is_compile_supported(device_type: str) -> bool:
    supported: bool = importlib.import_module(HELPERS).is_compile_supported(device_type)
    return supported


def _disable(function: Callable[..., Any], *args: Any, **options: Any) -> Callable[..., Any]:
    """Return a function that the compiler leaves alone, as `torch._dynamo.disable` does."""

    @functools.cache
    def disabled() -> Callable[..., Any]:
        compiler = importlib.import_module(COMPILER)
        made: Callable[..., Any] = compiler.disable(function, *args, **options)
        return made

    @functools.wraps(function)
    def call(*own: Any, **named: Any) -> Any:
        return disabled()(*own, **named)

    return call


class _StandIn(ModuleType):
    """Stands for a module of the compiler until something else is asked of it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by the import system
            raise AttributeError(name)
        _remove_stand_ins()
        return getattr(importlib.import_module(self.__name__), name)


def _remove_stand_ins() -> None:
    for name in (COMPILER, HELPERS):
        if isinstance(sys.modules.get(name), _StandIn):
            del sys.modules[name]


@contextmanager
def _without_compiler() -> Iterator[None]:
    if COMPILER in sys.modules:
        yield
        return
    compiler, helpers = _StandIn(COMPILER), _StandIn(HELPERS)
    vars(compiler).update(disable=_disable)
    vars(helpers).update(is_compile_supported=_is_compile_supported)
    sys.modules.update({COMPILER: compiler, HELPERS: helpers})
    try:
        yield
    finally:
        _remove_stand_ins()


with _without_compiler():
    import timm
    from timm.layers import convert_sync_batchnorm

__all__ = ["convert_sync_batchnorm", "timm"]
