"""The Python half of the bridge: one call of core.zhdrv becomes one call of a function in functions.py.

It exists apart because functions.py should read as the list of what the plugin does. How VapourSynth's values become
Python's, how a result goes back, and what a user reads when a call fails, is the same for all of them and lives here.
bridge.c tells the way of a call.
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import vapoursynth as vs

from vszhdrv.errors import Failed, failing

from .errors import sentence_for_user


def forward(name: str) -> None:
    """Carry out the call of core.zhdrv.NAME that bridge.c has noted for this thread.

    Called by bridge.c only. The result goes back through the callable that it passes to core.zhdrv.Bridge.

    Raises:
        Failed: the function failed; the text is the sentence for the user.
    """
    failure = ""

    def answer(**given: Any) -> dict[str, Any]:
        nonlocal failure
        try:
            with failing():
                from vszhdrv.plugin import functions

                function = getattr(functions, snake_case(name))
                registered = getattr(vs.core.zhdrv, name)
                arguments = to_arguments(given, registered.signature, function)
                return to_result(function(**arguments), registered.return_signature)
        except Exception as error:  # KeyboardInterrupt passes: VapourSynth's binding carries it to the caller
            failure = sentence_for_user(error)
            return {}

    vs.core.zhdrv.Bridge(answer)
    if failure:
        raise Failed(failure)


def snake_case(name: str) -> str:
    """The name in functions.py of a function of core.zhdrv: "WriteEXR" becomes "write_exr"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def to_arguments(given: Mapping[str, Any], signature: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Python's arguments for `function`, from those that VapourSynth's binding hands over.

    `data` becomes str, `int[]`, `float[]` and `data[]` a list even of one value, `int` a bool where the function's
    annotation says bool. An argument that the user left out is absent, so that the function's own default holds.

    Args:
        given: values by name, as the binding converts them.
        signature: VapourSynth's, such as "clip:vnode;tile:int[]:opt;".
    """
    kinds = dict(argument.split(":")[:2] for argument in signature.split(";") if argument)
    annotations = inspect.get_annotations(function)
    arguments = {}
    for name, value in given.items():
        if kinds[name].endswith("[]"):
            value = value if isinstance(value, list) else [value]
            if kinds[name] == "data[]":
                value = [os.fsdecode(word) for word in value]
        elif kinds[name] == "data":
            value = os.fsdecode(value)  # bytes come from callers other than Python, and may be file names
        elif annotations.get(name) in (bool, "bool"):
            value = bool(value)
        arguments[name] = value
    return arguments


def to_result(value: Any, return_signature: str) -> dict[str, Any]:
    """VapourSynth's result from what a function returns: a dict as it is, anything else under the one declared name."""
    if isinstance(value, dict):
        return value
    if isinstance(value, os.PathLike):
        try:
            value = os.fspath(value).encode().decode()
        except UnicodeEncodeError:  # a name that is not text, which the binding takes as bytes alone
            value = os.fsencode(value)
    return {return_signature.split(":")[0]: value}
