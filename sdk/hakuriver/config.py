"""The settings of Host, Runner and client: one TOML file, read once, handed down.

The file is the one that `--config` or `HAKURIVER_CONFIG` names, else `~/.hakuriver/config.toml`, else the machine's
`/etc/hakuriver/client.toml`. Each key can be overridden by the environment variable `HAKURIVER__<SECTION>__<KEY>`. An unknown key is an error that names
it. The description of each field is its documentation: `hakuriver config show --defaults` and
docs/reference/configuration.md are made from it.
"""

from __future__ import annotations

import json
import os
import socket
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_origin

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from hakuriver.errors import NotFoundError, UsageError
from hakuriver.labels import check_key, check_value
from hakuriver.mounts import check_mount
from hakuriver.problems import said
from hakuriver.references import check_name
from hakuriver.targets import NODE_NAME

CONFIG_VARIABLE = "HAKURIVER_CONFIG"
_PREFIX = "HAKURIVER"
_EXAMPLES: dict[Any, str] = {dict: '{"key": "value"}', list: '["a", "b"]'}
DEFAULT_PATH = Path("~/.hakuriver/config.toml")
MACHINE_PATH = Path("/etc/hakuriver/client.toml")
"""For everybody on a machine, as deployments write it: so that also jobs of cron, notebooks and `sudo -u` find the cluster."""


def _state_dir() -> Path:
    return Path(platformdirs.user_state_dir("hakuriver"))


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_default=True, defer_build=True)


class Network(_Section):
    host_bind_ip: str = Field("0.0.0.0", description="Address that the Host listens on.")  # noqa: S104
    host_port: int = Field(8000, ge=0, le=65535, description="Port of the Host's API.")
    host_ssh_proxy_port: int = Field(8002, ge=0, le=65535, description="Port of the SSH gateway; 0 is none.")
    host_reachable_address: str = Field(
        "127.0.0.1", description="Name or address at which Runners and clients reach the Host."
    )
    runner_bind_ip: str = Field("0.0.0.0", description="Address that the Runner listens on.")  # noqa: S104
    runner_address: str = Field(
        "127.0.0.1", description="Name or address at which the Host reaches this Runner."
    )
    runner_port: int = Field(8001, ge=0, le=65535, description="Port of the Runner's API.")


class Tls(_Section):
    cert_file: Path | None = Field(
        None, description="Certificate (PEM) that this daemon serves; none is plain HTTP."
    )
    key_file: Path | None = Field(None, description="Private key of `cert_file` (PEM).")
    ca_file: Path | None = Field(
        None, description="Certificates (PEM) to trust when calling the others; set, calls go over HTTPS."
    )


class Paths(_Section):
    shared_dir: Path = Field(Path("/mnt/hakuriver"), description="Shared storage, as this machine mounts it.")
    local_temp_dir: Path = Field(
        Path("/tmp/hakuriver"),  # noqa: S108
        description="Local disk of the Runner; each task gets a folder of its own in it as `/local_temp`.",
    )
    state_dir: Path = Field(
        default_factory=_state_dir,
        description="Where the daemons keep journals and tokens; readable by their user alone.",
    )
    numactl_path: str = Field("", description="The `numactl` program; empty looks on PATH.")
    host_log_file: Path | None = Field(None, description="File for the Host's log, beside standard error.")
    runner_log_file: Path | None = Field(
        None, description="File for the Runner's log, beside standard error."
    )


class Database(_Section):
    db_file: Path | None = Field(
        None, description="SQLite file of the Host; none is `host.db` in `paths.state_dir`."
    )
    url: str | None = Field(
        None,
        description="SQLAlchemy URL instead of `db_file`, such as `postgresql+psycopg://user@db/hakuriver`.",
    )


class Timing(_Section):
    heartbeat_interval: float = Field(
        5.0, gt=0, le=3600, description="Seconds between heartbeats of a Runner."
    )
    heartbeat_timeout_factor: float = Field(
        6.0, ge=2, le=1000, description="Missed intervals after which a node is offline (6 × 5 s = 30 s)."
    )
    cleanup_check_interval: float = Field(
        1.0, gt=0, le=60, description="Seconds between the Host's looks at silent nodes."
    )
    resource_check_interval: float = Field(
        1.0, gt=0, le=60, description="Seconds between the Runner's readings of its load."
    )
    lost_after: float = Field(
        600.0, gt=0, description="Seconds offline after which a node's tasks are `lost`."
    )
    terminal_wait: float = Field(
        60.0,
        ge=0,
        le=3600,
        description="Seconds that a terminal's program goes on after its connection was lost, to be taken up again; 0 ends it at once.",
    )


class Environment(_Section):
    runner_user: str = Field(
        "",
        description="User that tasks without container run as (`--container NULL`); empty is the Runner's own, or the task's"
        " owner where that is root.",
    )


class Docker(_Section):
    container_dir: str = Field(
        "hakuriver-containers", description="Folder in the share that holds environment archives."
    )
    default_container_name: str = Field(
        "hakuriver-base", description="Environment of tasks that name none; `NULL` is no container."
    )
    initial_base_image: str = Field(
        "python:3.12-slim",
        description="Image that the default environment is made from at the Host's first start.",
    )
    tasks_privileged: bool = Field(
        False, description="Whether tasks are privileged unless they say otherwise."
    )
    additional_mounts: list[str] = Field(
        [], description="`HOST:CONTAINER[:ro]` mounts of every task that names none."
    )
    socket: str = Field(
        "",
        description="URL of the Docker engine, or the path of its socket; empty asks `DOCKER_HOST`, then /var/run/docker.sock.",
    )

    keep_versions: int | None = Field(
        20,
        ge=1,
        description="Versions to keep of each environment; tagged, current and used ones stay in any case.",
    )
    keep_days: float | None = Field(
        None, gt=0, description="Days to keep versions of environments; none is without limit."
    )

    @field_validator("default_container_name")
    @classmethod
    def _name(cls, name: str) -> str:
        return name if name == "NULL" else check_name(name)

    @field_validator("socket")
    @classmethod
    def _socket(cls, socket: str) -> str:
        if socket.startswith("/"):
            return f"unix://{socket}"
        if socket and ":" not in socket:
            raise ValueError("must be a URL such as unix:///run/docker.sock or tcp://HOST:2376, or a path")
        return socket

    @field_validator("additional_mounts")
    @classmethod
    def _mounts(cls, mounts: list[str]) -> list[str]:
        return [check_mount(mount) for mount in mounts]


class Host(_Section):
    max_request_bytes: int = Field(
        4_000_000, ge=1024, description="Largest request body that the Host reads."
    )
    final_task_days: float = Field(
        90.0, gt=0, description="Days to keep the records and logs of final tasks."
    )


class UserLimits(_Section):
    """What one user may hold at a time, instead of what is set for each of them."""

    cores: int | None = Field(None, ge=1)
    memory_bytes: int | None = Field(None, ge=1)
    gpus: int | None = Field(None, ge=0)
    running: int | None = Field(None, ge=1)
    waiting: int | None = Field(None, ge=1)


class GroupLimits(UserLimits):
    """What the members of a group may hold at a time, together."""

    members: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1)


class Scheduling(_Section):
    placement: Literal["pack", "spread"] = Field(
        "pack",
        description="Whether tasks fill one node after the other, so that large tasks find room, or go where most is free.",
    )
    pin_cores: bool = Field(
        True,
        description="Whether each task gets cores of its own, and runs on no others, on nodes that can give them.",
    )
    fair_share_half_life_days: float = Field(
        7.0,
        ge=0,
        le=3650,
        description="Days after which what a user held counts half as much against them; 0 is first come, first served.",
    )
    user_weights: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="Parts of the cluster that users are due, by name; 1 for those who are not named."
    )
    max_cores_per_user: int | None = Field(
        None, ge=1, description="Cores that one user may hold at a time; none is without limit."
    )
    max_memory_bytes_per_user: int | None = Field(
        None, ge=1, description="Memory that one user may hold at a time, in bytes; none is without limit."
    )
    max_gpus_per_user: int | None = Field(
        None, ge=0, description="GPUs that one user may hold at a time; none is without limit."
    )
    max_running_per_user: int | None = Field(
        None, ge=1, description="Tasks of one user that may run at a time; none is without limit."
    )
    max_waiting_per_user: int | None = Field(
        None, ge=1, description="Tasks of one user that may wait; none is without limit."
    )
    user_limits: dict[str, UserLimits] = Field(
        {},
        description="By name: users with limits of their own, `{ ada = { cores = 64, gpus = 4 } }`; also `memory_bytes`, `running`"
        " and `waiting`. What is not named is as for each user.",
    )
    group_limits: dict[str, GroupLimits] = Field(
        {},
        description='By name: groups of users with limits together, `{ students = { members = ["bo", "cleo"], cores = 32 } }`;'
        " those of each user hold as well.",
    )


class Runner(_Section):
    name: str = Field(
        default_factory=socket.gethostname,
        description="Name of the node; the machine's host name unless set.",
    )
    cores: int | None = Field(None, ge=1, description="Cores to offer; none is all that the Runner may use.")
    memory_bytes: int | None = Field(None, ge=1, description="Memory to offer, in bytes; none is all of it.")
    allow_privileged: bool = Field(False, description="Whether tasks may run privileged on this node.")
    allowed_mount_roots: list[Path] = Field(
        [], description="Folders under which `--mount` may take its source; the share needs no entry."
    )
    gpu_access: Literal["auto", "cdi", "runtime", "devices"] = Field(
        "auto",
        description="How containers get GPUs: by CDI, by the NVIDIA runtime, or as bare device files; `auto` takes CDI where it is set up, else the runtime.",
    )
    tasks_per_gpu: int = Field(
        1,
        ge=1,
        le=64,
        description="Tasks that may have one GPU together, if all of them were submitted with `--share-gpus`.",
    )
    network: Literal["host", "bridge", "none"] = Field(
        "bridge", description="Network of containers that name none."
    )
    allowed_networks: list[Literal["host", "bridge", "none"]] = Field(
        ["bridge", "none", "host"], description="Networks that tasks may ask for on this node."
    )
    run_as_owner: bool = Field(
        False,
        description="Run each task as its owner and nobody else, whatever `--user` says; refuse those of owners without a uid.",
    )
    allow_any_user: bool = Field(
        False,
        description="Whether tasks without container may name any user, root included, and run as root where the Runner does.",
    )
    log_max_bytes: int = Field(
        1_000_000_000,
        ge=1024,
        description="Bytes kept of each of a task's stdout and stderr; the rest is dropped and noted.",
    )
    kill_grace_seconds: float = Field(
        10.0, ge=0, le=3600, description="Seconds between SIGTERM and SIGKILL at a kill or a time limit."
    )
    labels: dict[str, str] = Field(
        {},
        description="Labels of the node, by which tasks can ask for it (`--node-label`); admins may change them.",
    )
    join_token_file: Path | None = Field(None, description="File with the join token; needed once.")
    environment_cache_bytes: int | None = Field(
        50_000_000_000,
        ge=1,
        description="Bytes of environments that this node's engine keeps; the least recently used go first. None is without limit.",
    )
    parallel_starts: int = Field(8, ge=1, le=64, description="Containers that are created at the same time.")

    @field_validator("name")
    @classmethod
    def _name(cls, name: str) -> str:
        if not NODE_NAME.fullmatch(name):
            raise ValueError("a node's name has letters, digits and . _ - inside, at most 64")
        return name

    @field_validator("labels")
    @classmethod
    def _labels(cls, labels: dict[str, str]) -> dict[str, str]:
        try:
            return {check_key(key): check_value(value) for key, value in labels.items()}
        except UsageError as error:
            raise ValueError(error.message) from None


class Client(_Section):
    url: str = Field("", description="URL of the Host; empty makes it of the network section.")
    token_file: Path | None = Field(
        None,
        description="File with your token; none is `token` beside the configuration. `HAKURIVER_TOKEN` goes before it.",
    )
    timeout: float = Field(30.0, gt=0, description="Seconds to wait for an answer.")


def _of_defaults() -> Any:
    """The default of a section: validated as an empty table of the file is, so that no model is built for its own sake."""
    return Field({})


class Settings(BaseModel):
    """Everything, as validated. A section that is not given is one of defaults."""

    model_config = ConfigDict(extra="forbid", validate_default=True, defer_build=True)

    network: Network = _of_defaults()
    tls: Tls = _of_defaults()
    paths: Paths = _of_defaults()
    database: Database = _of_defaults()
    timing: Timing = _of_defaults()
    environment: Environment = _of_defaults()
    docker: Docker = _of_defaults()
    host: Host = _of_defaults()
    scheduling: Scheduling = _of_defaults()
    runner: Runner = _of_defaults()
    client: Client = _of_defaults()

    @property
    def scheme(self) -> str:
        return "https" if self.tls.ca_file or self.tls.cert_file else "http"

    @property
    def host_url(self) -> str:
        """Where Runners and clients reach the Host, without a final slash."""
        if self.client.url:
            return self.client.url.rstrip("/")
        return f"{self.scheme}://{_in_url(self.network.host_reachable_address)}:{self.network.host_port}"

    @property
    def runner_url(self) -> str:
        return f"{self.scheme}://{_in_url(self.network.runner_address)}:{self.network.runner_port}"

    @property
    def database_url(self) -> str:
        if self.database.url:
            return self.database.url
        return f"sqlite:///{self.database.db_file or self.paths.state_dir / 'host.db'}"

    @property
    def container_dir(self) -> Path:
        return self.paths.shared_dir / self.docker.container_dir


def config_path(given: Path | None = None) -> Path:
    """The file to read: `--config`, else `HAKURIVER_CONFIG`, else the user's own, else the machine's where there is one."""
    own = own_config_path(given)
    is_named = given is not None or bool(os.environ.get(CONFIG_VARIABLE))
    # Not by pathlib: a home that may not be looked into has none.
    if is_named or os.path.exists(own) or not os.path.exists(MACHINE_PATH):  # noqa: PTH110
        return own
    return MACHINE_PATH


def own_config_path(given: Path | None = None) -> Path:
    """The file that is a person's to write: `--config`, else `HAKURIVER_CONFIG`, else `~/.hakuriver/config.toml`."""
    named = given or (Path(os.environ[CONFIG_VARIABLE]) if os.environ.get(CONFIG_VARIABLE) else None)
    return (named or DEFAULT_PATH).expanduser()


def load(given: Path | None = None) -> Settings:
    """Reads the settings.

    Raises:
        NotFoundError: a file was named and is not there.
        UsageError: it is not TOML, or a key or value is wrong; the message names each.
    """
    path = config_path(given)
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        if given or os.environ.get(CONFIG_VARIABLE):
            raise NotFoundError(
                f"there is no configuration file {path}", "make one with `hakuriver init config`"
            ) from None
        return _validated({}, path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the configuration {path}: {getattr(error, 'strerror', None) or 'it is not text'}",
            "check the file and its permissions",
        ) from None
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}", "mend the line it names") from None
    return _validated(values, path)


def _validated(values: dict[str, object], source: Path) -> Settings:
    """The settings; variables of the environment are read here too.

    What is wrong is said of the place where it stands: the file, or the variable that goes before it.
    """
    of_variables = [*_wrong_variables()]
    of_file: list[str] = []
    if not of_variables:
        try:
            return Settings.model_validate(_with_variables(values))
        except ValidationError as error:
            for problem in error.errors(include_url=False, include_input=False):
                place = ".".join(map(str, problem["loc"]))
                variable = _variable_of(*problem["loc"][:2])
                (of_variables if variable else of_file).append(_problem(place, problem, variable))
    said_of = [f"wrong settings in {source}: {'; '.join(of_file)}"] if of_file else []
    if of_variables:
        said_of.append(f"wrong settings in the environment: {'; '.join(of_variables)}")
    raise UsageError("; ".join(said_of), "see `hakuriver config show --defaults`")


def _with_variables(values: dict[str, object]) -> dict[str, object]:
    """The values of the file, with those that variables of the environment set instead."""
    if not any(name.upper().startswith(f"{_PREFIX}__") for name in os.environ):
        return values
    # pydantic-settings loads much, and there are seldom variables.
    from hakuriver.variables import given  # noqa: PLC0415

    return given(Settings, f"{_PREFIX}__", values)


def _wrong_variables() -> Iterator[str]:
    """Variables that name no section, and those whose value is to be JSON and is not."""
    for name, value in os.environ.items():
        prefix, section, *rest = [*name.upper().split("__"), ""]
        if prefix != _PREFIX or not section:
            continue
        model = _section(section.lower())
        if model is None:
            known = _close_to(section.lower(), Settings.model_fields)
            yield f"{name} is not a setting{_meant([f'{_PREFIX}__{key.upper()}__…' for key in known])}"
            continue
        field = model.model_fields.get(rest[0].lower())
        whole = not rest[0]
        kind: Any = dict if whole else get_origin(field.annotation) if field is not None else None
        if kind in _EXAMPLES and not any(rest[1:]) and not isinstance(_json(value), kind):
            yield f"{name}: must be JSON, such as {_EXAMPLES[kind]}"


def _problem(place: str, problem: Mapping[str, Any], variable: str | None) -> str:
    """One thing that is wrong."""
    if problem["type"] != "extra_forbidden":
        return f"{variable or place}: {said(problem)}"
    section, _, key = place.rpartition(".")
    if "." in section:
        # Inside a table, such as those of users' limits.
        return f"{f'{variable}: ' if variable else ''}{place} is not a setting"
    known = _close_to(key, getattr(_section(section) or Settings, "model_fields", {}))
    if variable:
        known = [f"{_PREFIX}__{section.upper()}__{name.upper()}" for name in known]
    return f"{variable or place} is not a setting{_meant(known)}"


def _variable_of(section: int | str, key: int | str = "") -> str | None:
    """The variable that a wrong value comes from, if it comes from one."""
    of_section = f"{_PREFIX}__{section}".upper()
    of_key = f"{of_section}__{key}".upper()
    for name, value in os.environ.items():
        upper = name.upper()
        if upper == of_key or upper.startswith(f"{of_key}__"):
            return name
        if upper == of_section and (not key or f'"{key}"' in value):
            return f"{name} ({key})" if key else name
    return None


def _section(name: str) -> type[BaseModel] | None:
    field = Settings.model_fields.get(name)
    kind = field.annotation if field else None
    return kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None


def _close_to(name: str, known: Iterable[str]) -> list[str]:
    """The one that is most like it, if one is."""
    from difflib import get_close_matches  # noqa: PLC0415  (of mistakes alone)

    return get_close_matches(name, list(known), n=1)


def _meant(known: Sequence[str]) -> str:
    return f" (did you mean {known[0]}?)" if known else ""


def _json(text: str) -> object:
    """What it says; nothing where it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address
