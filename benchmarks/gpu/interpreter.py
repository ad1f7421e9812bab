"""Triton's interpreter without what it does for nothing.

At every call of a device function it searches its language for what to replace, which the launch
has done. And it computes integers twice, to assert that they do not overflow: only in a debug mode
that it is never in.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import triton.language as tl
from triton.runtime import interpreter

_patch = interpreter._patch_lang


def spare() -> None:
    """From now on, in this process."""
    interpreter._patch_lang = _patch_once
    builder = interpreter.interpreter_builder
    assert not builder.options.debug
    builder.options = replace(builder.options, sanitize_overflow=False)


def _patch_once(function: Callable[..., Any]) -> Any:
    if all(not tl.core.is_builtin(each.load) for each in _languages(function)):
        return interpreter._LangPatchScope()
    return _patch(function)


@cache
def _languages(function: Callable[..., Any]) -> list[Any]:
    """The modules of the language that `function` knows; each is patched by itself."""
    known = [id(each) for each in function.__globals__.values()]
    return [each for each in (tl, tl.core) if id(each) in known]
