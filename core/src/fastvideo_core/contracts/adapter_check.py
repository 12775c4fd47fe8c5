"""Whether an adapter, or its class, has what a method needs, under the signatures that the Protocols give."""

import ast
import inspect
from collections.abc import Iterable, Iterator
from typing import Any, Literal, get_args, get_origin

from typing_extensions import is_protocol

from fastvideo_core.contracts.adapter import DistillAdapter
from fastvideo_core.contracts.roles import RoleHandle
from fastvideo_core.errors import ContractError, Problem


def check_adapter(
    adapter: Any, needed: type | Iterable[type], *, method: str, family: str, roles_only: bool = False
) -> None:
    """Raises ContractError, with all faults, unless the adapter has `prepare_batch` and all of the Protocols, called as they say.

    Where no adapter is made yet, `adapter` is its class; values that only an instance has are not missed then. `roles_only`, of a
    family beside the recipe's, looks only at calls that take a role.
    """
    problems: list[Problem] = []
    where = f"family '{family}', {(adapter if isinstance(adapter, type) else type(adapter)).__name__}"
    members = members_of(DistillAdapter)
    for protocol in [needed] if isinstance(needed, type) else needed:
        try:
            members |= members_of(protocol)
        except TypeError as error:
            found = f"method '{method}' names what it needs, but {error}"
            fix = "name a class with Protocol among its bases: class Needs(AddNoise, PredictX0, Protocol)"
            problems.append(Problem(found, fix=fix))
    for name, member in members.items():
        if roles_only and not (inspect.isroutine(member) and role_parameter(_signature(member))):
            continue
        if _is_missing(adapter, name, member):
            found = f"lacks the primitive '{name}', which method '{method}' needs"
            fix = f"implement it, or choose a method that does not need '{name}'"
            problems.append(Problem(found, where, _described(name, member), fix))
        elif difference := _difference(adapter, name, member):
            problems.append(Problem(f"'{name}' {difference}", where, _described(name, member)))
    if problems:
        raise ContractError(problems)


def members_of(protocol: type) -> dict[str, Any]:
    """The public members of a Protocol: functions, properties, or the annotations of plain attributes."""
    if not is_protocol(protocol):
        raise TypeError(f"{getattr(protocol, '__qualname__', repr(protocol))} is no Protocol")
    members: dict[str, Any] = {}
    for part in filter(is_protocol, reversed(protocol.__mro__)):
        members |= {**inspect.get_annotations(part), **vars(part)}
    return {name: member for name, member in members.items() if not name.startswith("_")}


def role_parameter(signature: inspect.Signature) -> str:
    """The parameter of a bound call that takes the role: annotated RoleHandle, or a first one named `handle`; else empty."""
    for index, parameter in enumerate(signature.parameters.values()):
        annotation = _plain(parameter.annotation).rpartition(".")[2]
        if annotation == RoleHandle.__name__ or (index == 0 and parameter.name == "handle"):
            return parameter.name
    return ""


def _is_missing(adapter: Any, name: str, member: Any) -> bool:
    found = inspect.getattr_static(adapter, name, None)
    if not isinstance(adapter, type):  # what a Protocol itself has is no implementation
        return found is member or not hasattr(adapter, name)
    absent = found is None or found is member or getattr(found, "__isabstractmethod__", False)
    return absent and inspect.isroutine(member)  # values may be there in instances alone


def _difference(adapter: Any, name: str, member: Any) -> str:
    """How a member differs from the contract's; empty where it does not, or where only an instance could tell."""
    found = inspect.getattr_static(adapter, name, None)
    if isinstance(adapter, type) and (found is None or isinstance(found, property)):
        return ""
    found = _bound(found) if isinstance(adapter, type) else getattr(adapter, name)
    if (values := _literal(member)) and found not in values:
        return f"is {found!r}: method and family do not fit"
    if not inspect.isroutine(member):
        return "is a method, not a value" if isinstance(member, property) and inspect.isroutine(found) else ""
    if not callable(found):
        return f"is a {type(found).__name__}, not a method"
    try:
        actual = inspect.signature(found)
    except ValueError:  # of code that is not Python
        return ""
    for arguments, keywords in _calls(_signature(member)):
        try:
            actual.bind(*arguments, **keywords)
        except TypeError as error:
            return f"cannot be called as the contract says ({error}); it is {_unannotated(actual)}"
    return ""


def _calls(contract: inspect.Signature) -> Iterator[tuple[list[str], dict[str, str]]]:
    """How callers may pass arguments: by position or by name where both are allowed, all or only those without a default."""
    named = [p for p in contract.parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    for chosen in (named, [p for p in named if p.default is p.empty]):
        for last in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            yield [p.name for p in chosen if p.kind <= last], {p.name: p.name for p in chosen if p.kind > last}


def _bound(member: Any) -> Any:
    """A method of a class as it is called on an instance, of which there is none yet."""
    return member.__get__(object(), object) if hasattr(member, "__get__") else member


def _literal(member: Any) -> tuple[Any, ...]:
    """The values of an attribute that is annotated Literal[...], in the source or as its text; none of others."""
    if not isinstance(member, str):
        return get_args(member) if get_origin(member) is Literal else ()
    kind, _, values = _plain(member).partition("[")
    return ast.literal_eval(f"({values[:-1]},)") if kind.rpartition(".")[2] == "Literal" else ()


def _signature(member: Any) -> inspect.Signature:
    return inspect.signature(_bound(member))


def _described(name: str, member: Any) -> str:
    if inspect.isroutine(member):
        return f"{name}{_unannotated(_signature(member))}"
    if isinstance(member, property) and member.fget is not None:
        return f"{name} -> {_plain(inspect.signature(member.fget).return_annotation)} (a property)"
    return f"{name}: {_plain(member)}"


def _unannotated(signature: inspect.Signature) -> inspect.Signature:
    return inspect.Signature([p.replace(annotation=p.empty) for p in signature.parameters.values()])


def _plain(annotation: Any) -> str:
    return inspect.formatannotation(annotation).strip("'")
