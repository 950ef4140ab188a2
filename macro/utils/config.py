"""Command lines: `python -m macro.<name> --config=configs/x.py[:arg] --config.total_steps=24 --workdir=W`.

A command line is a function whose keyword arguments are its flags; `run(main, seed="help text", ...)` parses them,
calls the function and turns a UserError into one line `error: ...` and exit code 2. The config is an
`ml_collections.ConfigDict`; each key can be overridden by a flag, and an unknown key is an error with a suggestion.
`from_config` makes a dataclass from a section of the config, `parse_overrides` one from flags such as
`--engine.size=64`.
"""

import ast
import dataclasses
import difflib
import inspect
import json
import os
import platform
import re
import runpy
import sys
import tempfile
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from macro.utils.errors import UserError
from macro.utils.files import atomic_write, local
from macro.utils.renamed_keys import explain

# Help for parameters that mean the same on every command line.
_SHARED_HELP = {
    "config": "config file, `configs/x.py` or `configs/x.py:arg`; override keys as --config.key=value",
    "workdir": "folder that everything is written to; made if it is not there",
}


def run(
    main: Callable[..., Any],
    argv: Sequence[str] | None = None,
    positional: Sequence[str] = (),
    dotted: Mapping[str, str] = MappingProxyType({}),
    **helps: str,
) -> None:
    """Calls `main` with its arguments read from the command line, and exits the process.

    Args:
      main: its parameters become flags of the same name (without the trailing `_` of a Python keyword); the
        type is that of the default (None: `int | None` where annotated so, else a string), and a parameter
        without default is required. `config` and `workdir` need no help text.
      argv: the command line including the program's name; sys.argv if None.
      positional: parameters that are given by position, in this order, without a name.
      dotted: {"engine": "options"} passes all flags `--engine.key=value` to the parameter `options` as
        {"key": "value"}; see `parse_overrides`.
      **helps: one line on each other parameter of `main`.

    Exit codes: what main returns if that is an int, else 0; 2 after `error: ...` on stderr for a UserError.
    """
    argv = list(sys.argv if argv is None else argv)
    try:
        arguments = _parse(main, argv, helps, positional, dotted)
        if arguments is None:
            sys.exit(0)
        if "workdir" in arguments:
            arguments["workdir"] = writable_folder(arguments["workdir"])
        _cache_compilations()
        code = main(**arguments)
    except UserError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    sys.exit(code if isinstance(code, int) else 0)


def load(path: str) -> ConfigDict:
    """The config of `configs/x.py` or `configs/x.py:arg`, where `arg` is passed to its get_config."""
    file = path.split(":", 1)[0]
    if not Path(file).is_file():
        here = ", ".join(sorted(str(p) for p in Path(file).parent.glob("*.py"))) or "no configs at all"
        raise UserError(f"--config={file}: there is no such file; that folder has {here}")
    module = runpy.run_path(file)
    if "get_config" not in module:
        raise UserError(f"--config={file}: has no function get_config(arg='') that returns a ConfigDict")
    config = module["get_config"](*path.split(":", 1)[1:])
    for key, _ in _paths(config):
        if became := explain(key):
            raise UserError(f"--config={file}: the key {key!r} {became}")
    return config.lock()


def from_config(cls: type, values: Mapping | ConfigDict, where: str) -> Any:
    """The dataclass `cls` from a section of the config; `where` names the section in errors.

    Integers are accepted for floats, lists for tuples. Raises UserError for an unknown key, a value of the wrong type,
    or a missing key without default.
    """
    return _section(cls, values, f"config.{where}")


def _section(cls: type, values: Mapping | ConfigDict, name: str) -> Any:
    kinds = typing.get_type_hints(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    taken = {}
    for key, value in values.items():
        if key not in names:
            became = explain(f"{name}.{key}".removeprefix("config."))
            raise UserError(f"{name}: unknown key {key!r}{f'; it {became}' if became else suggestion(key, names)}")
        taken[key] = _taken_as(kinds[key], value, f"{name}.{key}")
    for field in dataclasses.fields(cls):
        bare = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if bare and field.name not in values:
            raise UserError(f"{name}: the key {field.name!r} is missing")
    return cls(**taken)


def parse_overrides(cls: type, values: Mapping[str, str], where: str) -> Any:
    """The dataclass `cls` with some fields set from the command line, the others at their defaults.

    Args:
        values: {"area": "0.02", "noise.boxes": "0.1"}: a dotted key for a field of a nested dataclass; values are
            Python literals unless the field is a str.
        where: names the section in errors, and on the command line: "--engine".

    Raises:
        UserError: an unknown key, with a suggestion; a value of another type than its field.
    """
    known = option_names(cls)
    tree: dict = {}
    for path, value in values.items():
        if path not in known:
            raise UserError(f"{where}.{path}: there is no such option{suggestion(path, known)}")
        parts = [name for name in known if name.startswith(f"{path}.")]
        if parts:
            raise UserError(f"{where}.{path}: is made of {', '.join(parts)}; set those")
        *above, last = path.split(".")
        kind, part = cls, tree
        for name in above:
            kind, part = typing.get_type_hints(kind)[name], part.setdefault(name, {})
        part[last] = _read_as(typing.get_type_hints(kind)[last], value)
    return _section(cls, tree, where)


def non_hash_field(**default: Any) -> Any:
    """A `dataclasses.field` that does not affect the results: a number of threads, an address, a timeout."""
    return dataclasses.field(**default, metadata={"non_hash": True})


def hash_fields(options: Any) -> dict[str, Any]:
    """The fields that affect the results; `json.dumps(options, default=hash_fields)` is hashed."""
    return {f.name: getattr(options, f.name) for f in dataclasses.fields(options) if not f.metadata.get("non_hash")}


def option_names(cls: type) -> list[str]:
    """The keys that `parse_overrides` accepts for a dataclass: "noise", "noise.boxes"."""
    return [path for path, _ in _paths(_nested(cls))]


def _nested(cls: type) -> dict[str, Any]:
    """Names of a dataclass's fields, nested for fields that are dataclasses."""
    kinds = typing.get_type_hints(cls)
    return {
        field.name: _nested(kinds[field.name]) if dataclasses.is_dataclass(kinds[field.name]) else None
        for field in dataclasses.fields(cls)
    }


def _read_as(kind: Any, text: str) -> Any:
    """A value from the command line: a Python literal, else a str."""
    if kind is str or (isinstance(kind, types.UnionType) and str in kind.__args__ and text != "None"):
        return text
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def choose(config: ConfigDict, key: str, among: Iterable[str]) -> str:
    """`config[key]`, which must be one of the names in `among`."""
    names = list(among)
    if config[key] not in names:
        raise UserError(f"config.{key}={config[key]!r}{suggestion(config[key], names)}")
    return config[key]


def save_config(config: ConfigDict, workdir: str) -> None:
    """Writes `<workdir>/config.json`; prints to stderr what changed since the last run there."""
    path = Path(workdir) / "config.json"
    now = json.loads(config.to_json_best_effort())
    if path.exists():
        before = dict(_paths(json.loads(path.read_text())))
        for key, value in _paths(now):
            if not isinstance(value, Mapping) and before.get(key) != value:
                print(f"config.{key}: this run began with {before.get(key)}, now {value}", file=sys.stderr)
    atomic_write(path, json.dumps(now, indent=2) + "\n")


def writable_folder(path: str) -> str:
    """Makes the folder and checks that it is writable, before hours are spent on its content."""
    try:
        os.makedirs(local(path), exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"--workdir={path}: cannot be written to ({reason}); name another folder") from error
    return path


def _parse(
    main: Callable, argv: list[str], helps: Mapping[str, str], positional: Sequence[str], dotted: Mapping[str, str]
) -> dict[str, Any] | None:
    """The arguments for `main`, or None for `--help`."""
    values = flags.FlagValues()
    values.set_gnu_getopt(bool(positional))  # flags may follow positional arguments
    parameters = inspect.signature(main).parameters
    own = [name for name in parameters if name not in ("config", *positional, *dotted.values())]
    for name in own:
        _define(values, parameters[name], helps.get(name) or _SHARED_HELP[name])
    if {"-h", "--help", "--helpfull"} & set(argv):
        _print_help(main, values, [name for name in parameters if name not in own], helps)
        return None
    argv = [_underscored(argument, parameters) for argument in argv]
    overrides, argv = _take_dotted(dotted, argv)
    config = {}
    if "config" in parameters:
        path, argv = _take_config(argv)
        config["config"] = load(path)
        _check_overrides(config["config"], argv)
        config_flags.DEFINE_config_dict("config", config["config"], flag_values=values, sys_argv=argv)
    try:
        left = values(argv)[1:]
    except flags.Error as error:
        raise UserError(str(error).removeprefix("flag ")) from error
    if left[len(positional) :]:
        raise UserError(f"{left[len(positional)]!r} is not a flag; write --name=value")
    for name in positional[len(left) :]:
        raise UserError(f"{_flag(name)} is missing: {helps[name]}")
    for name in own:
        if parameters[name].default is inspect.Parameter.empty and not values[_flag(name)].value:
            raise UserError(f"--{_flag(name)} is missing: {helps.get(name) or _SHARED_HELP[name]}")
    named = {name: values[_flag(name)].value for name in own}
    return named | config | overrides | dict(zip(positional, left, strict=True))


def _take_dotted(dotted: Mapping[str, str], argv: list[str]) -> tuple[dict[str, dict[str, str]], list[str]]:
    """{parameter: {key: value}} of all `--flag.key=value`, and the command line without them."""
    found: dict[str, dict[str, str]] = {parameter: {} for parameter in dotted.values()}
    left = []
    for argument in argv:
        match = re.match(r"--?(\w+)\.([^=]+)(?:=(.*))?$", argument, re.DOTALL)
        if not match or match[1] not in dotted:
            left.append(argument)
        elif match[3] is None:
            raise UserError(f"{argument}: has no value; write --{match[1]}.{match[2]}=value")
        else:
            found[dotted[match[1]]][match[2]] = match[3]
    return found, left


def _underscored(argument: str, parameters: Iterable[str]) -> str:
    """`--some-flag=x` as `--some_flag=x`, if there is such a flag."""
    name, *value = argument.split("=", 1)
    meant = name.lstrip("-").replace("-", "_")
    return "=".join([f"--{meant}", *value]) if name.startswith("--") and meant in parameters else argument


def _flag(parameter: str) -> str:
    return parameter.removesuffix("_")


def _define(values: flags.FlagValues, parameter: inspect.Parameter, help_text: str) -> None:
    default = None if parameter.default is parameter.empty else parameter.default
    makers = {bool: flags.DEFINE_bool, int: flags.DEFINE_integer, float: flags.DEFINE_float}
    optional = isinstance(parameter.annotation, types.UnionType) and default is None
    kind = parameter.annotation.__args__[0] if optional else type(default)
    makers.get(kind, flags.DEFINE_string)(_flag(parameter.name), default, help_text, flag_values=values)


def _take_config(argv: list[str]) -> tuple[str, list[str]]:
    """The value of --config, and the command line without it."""
    for i, argument in enumerate(argv):
        if re.match(r"--?config=", argument):
            return argument.split("=", 1)[1], argv[:i] + argv[i + 1 :]
        if argument in ("-config", "--config") and i + 1 < len(argv):
            return argv[i + 1], argv[:i] + argv[i + 2 :]
    raise UserError("--config is missing: name a config file, such as --config=configs/demo.py")


_PLAIN = (int, float, str, bool, tuple)


def _taken_as(kind: Any, value: Any, name: str) -> Any:
    """`value` converted to the type of a field; only plain Python types are checked."""
    if isinstance(kind, types.UnionType):
        kinds = kind.__args__
        if value is None and types.NoneType in kinds:
            return None
        kind, *others = (each for each in kinds if each is not types.NoneType)
        if others:
            plain = all(each in _PLAIN for each in (kind, *others))
            if plain and type(value) not in kinds:
                raise UserError(f"{name}={value!r}: must be of type {kind.__name__}")
            return value
    if dataclasses.is_dataclass(kind) and isinstance(value, Mapping):
        return _section(kind, value, name)
    inner = typing.get_args(kind)
    kind = typing.get_origin(kind) or kind
    if kind is float and type(value) is int:
        return float(value)
    if kind is tuple and isinstance(value, list | tuple):
        several = inner[1:] == (...,)
        return tuple(_taken_as(inner[0], each, name) for each in value) if several else tuple(value)
    if kind in _PLAIN and type(value) is not kind:
        raise UserError(f"{name}={value!r}: must be of type {kind.__name__}")
    return value


def _check_overrides(config: ConfigDict, argv: Iterable[str]) -> None:
    for argument in argv:
        match = re.match(r"--?(?:no)?config\.([^=]+)", argument)
        if not match:
            continue
        path = match.group(1)
        if path not in dict(_paths(config)):
            became = explain(path)
            other = f"; it {became}" if became else suggestion(path, [p for p, _ in _paths(config)])
            raise UserError(f"unknown config key {path!r}{other}")


def _paths(config: Mapping | ConfigDict, prefix: str = "") -> Iterable[tuple[str, Any]]:
    for key, value in config.items():
        yield prefix + key, value
        if isinstance(value, Mapping | ConfigDict):
            yield from _paths(value, f"{prefix}{key}.")


def suggestion(key: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` with the known key spelt most like `key`, or the list of known keys."""
    last = {path.rsplit(".", 1)[-1]: path for path in known}
    close = difflib.get_close_matches(key, known, 1) or [
        last[name] for name in difflib.get_close_matches(key.rsplit(".", 1)[-1], last, 1)
    ]
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are {', '.join(sorted(path for path in known if '.' not in path))}"


def _print_help(main: Callable, values: flags.FlagValues, others: Sequence[str], helps: Mapping[str, str]) -> None:
    """The command's description, then its parameters: `others` are not flags of their own."""
    print(inspect.getdoc(inspect.getmodule(main)) or "", end="\n\n")
    for name in others:
        print(f"  {'--config' if name == 'config' else name}: {helps.get(name) or _SHARED_HELP[name]}")
    for name in values:
        default = values[name].value
        print(f"  --{name}: {values[name].help}" + ("" if default is None else f" (default: {default})"))


def _cache_compilations() -> None:
    """Turns on JAX's compilation cache, so that a command's second start is quick.

    One folder per processor model: code compiled for one may not run on another that shares the home folder.
    """
    cpuinfo = Path("/proc/cpuinfo")
    features = re.search(r"^(flags|Features).*$", cpuinfo.read_text(), re.M) if cpuinfo.exists() else None
    described = features.group(0) if features else platform.processor()
    kind = f"{platform.machine()}-{zlib.crc32(described.encode()):08x}"
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(root, "macro", "jax", kind)
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError:  # A read-only home costs only some seconds of compiling.
        return
    # JAX reads it when it is first imported: command lines import it (and all that is heavy) inside `main`.
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", folder)
