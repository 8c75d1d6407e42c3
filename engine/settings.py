"""Settings from the environment or a `.env` file.

The four addresses have the names that everybody uses (`DATABASE_URL`, `REDIS_URL`, `TEMPORAL_ADDRESS`,
`TEMPORAL_NAMESPACE`); all else has the prefix `ORCHESTRATOR_`. What is secret may stand in a file instead, which a
variable with `_FILE` behind its name says. Nothing is read at import: composition roots call `Settings()`.
"""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from engine.contracts import limits
from engine.contracts.capacity import MICROS, CapacityLimits
from engine.secret_files import SecretFiles


class Settings(BaseSettings):
    """All settings of every role. A role uses what it needs."""

    model_config = SettingsConfigDict(
        env_prefix="ORCHESTRATOR_", env_file=".env", extra="ignore", frozen=True, populate_by_name=True
    )

    # Servers
    database_url: SecretStr = Field(
        SecretStr("postgresql://orchestrator_app@127.0.0.1:5432/orchestrator"),
        validation_alias=AliasChoices("DATABASE_URL", "database_url"),
    )
    database_maintenance_url: SecretStr | None = Field(
        None, validation_alias=AliasChoices("DATABASE_MAINTENANCE_URL", "database_maintenance_url")
    )
    """A login of its own for the reconciler; without it, `database_url` with SET ROLE orchestrator_maintenance."""
    database_owner_url: SecretStr | None = Field(
        None, validation_alias=AliasChoices("DATABASE_OWNER_URL", "database_owner_url")
    )
    """Who owns the tables; only `migrate` uses it."""
    database_pool_max: int = Field(16, ge=2, le=500)
    redis_url: SecretStr = Field(
        SecretStr("redis://127.0.0.1:6379/0"), validation_alias=AliasChoices("REDIS_URL", "redis_url")
    )
    temporal_address: str = Field(
        "127.0.0.1:7233", validation_alias=AliasChoices("TEMPORAL_ADDRESS", "temporal_address")
    )
    temporal_namespace: str = Field(
        "default", validation_alias=AliasChoices("TEMPORAL_NAMESPACE", "temporal_namespace")
    )
    temporal_ui_url: str | None = None
    task_queue: str = "orchestrator"

    # Gateway
    host: str = "127.0.0.1"
    port: int = Field(8002, ge=0, le=65535)
    probe_port: int | None = Field(None, ge=1, le=65535)
    """Where roles other than the gateway answer probes; they do not when absent."""
    public_url: str | None = None
    """The address in answers' URLs; the request's own when absent."""
    request_bytes_max: int = limits.REQUEST_BYTES_MAX
    batch_requests_max: int = limits.BATCH_REQUESTS_MAX
    requests_per_minute: int = Field(1000, ge=0)
    """Per client address; 0 is no limit."""
    rate_limit_exempt_loopback: bool = False
    allowed_origins: Annotated[tuple[str, ...], NoDecode] = ()
    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = ()
    """Addresses or networks whose X-Forwarded-For and X-Forwarded-Proto are believed; none by default."""
    operation_timeout_seconds: float = 30.0
    agent_cpu_cores_max: float = Field(1024.0, gt=0)
    agent_memory_bytes_max: int = Field(16 * 1024**4, gt=0)
    """The largest agent that a definition may ask for: above it no host here could ever take it."""

    # Capacity
    capacity_executions_max: int = Field(2_000, ge=1)
    """Executions started and not closed, of all tenants; further ones wait."""
    capacity_agents_max: int | None = Field(None, ge=1)
    capacity_cpu_cores_max: float | None = Field(None, gt=0)
    capacity_memory_bytes_max: int | None = Field(None, ge=1)
    """What the agents of those executions may take together; no limit when absent."""
    tenant_executions_max: int | None = Field(None, ge=1)
    queue_waiting_max: int = Field(1_000, ge=1)
    """When so many executions wait, new ones of low priority are refused."""

    # Tokens
    token_key_file: Path | None = None
    """Ed25519 key, PEM: private where tokens are issued, public is enough to verify."""
    token_jwks_url: str | None = None
    token_issuer: str = "orchestrator"  # noqa: S105 - a name, not a secret
    token_audience: str = "orchestrator"  # noqa: S105 - a name, not a secret

    # Agents
    catalogue_file: Path | None = None
    agent_secret_file: Path | None = None
    """From which the agents' Redis passwords are derived; `agent-secret` in the data directory when absent."""
    event_partitions: int = Field(8, ge=1, le=1024)
    """Fixed for a deployment: executions remember theirs."""
    published_events_seconds: float = Field(3_600.0, ge=60)
    """How long published events stay on the streams, of a workflow and for groups that do not acknowledge."""
    started_held_seconds: float = Field(10.0, ge=0.1, le=10.0)
    """How long the news that a task has started may wait for other news of its execution, at most."""
    redis_bytes_max: int | None = Field(None, ge=16 * 1024**2)
    """Memory of Redis that is to be used; the server's `maxmemory`, or half of its machine, when absent."""
    heartbeat_seconds: float = 2.0
    host_lost_after_seconds: float = 8.0
    """Four missed heartbeats: a garbage collection or a busy machine costs one or two."""
    host_start_timeout_seconds: float = 30.0
    host_idle_seconds: float = 300.0

    # Agents as Kubernetes pods
    allocator: Literal["process", "kubernetes"] = "process"
    """Whether agents of the types that the engine starts run in host processes here or each in a pod of its own."""
    allocation_seconds: float = Field(30.0, ge=1, le=3600)
    """How long an execution that has nothing else to do waits for its agents; a pull of a large image takes longer."""
    kubernetes_kubeconfig: Path | None = None
    """Without it: the service account of the pod in which this process runs, or else the user's own kubeconfig."""
    kubernetes_context: str | None = None
    kubernetes_owner: str = Field("orchestrator", pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")
    """This deployment's name: it touches only what carries it. Deployments that share a cluster need different ones."""
    kubernetes_namespace_prefix: str = Field("orchestrator-", pattern=r"^[a-z]([a-z0-9-]{0,38})?$")
    """In front of the tenant's name; deployments that share a cluster need different ones."""
    kubernetes_manage_namespaces: bool = True
    """Whether the engine makes the tenants' namespaces with quota and policies, or finds them made."""
    kubernetes_tenant_role: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9:._-]{0,252}$")
    """A ClusterRole that the engine gives itself in each namespace that it makes, where it has no wider rights."""
    kubernetes_service_account: str | None = Field(None, pattern=r"^[a-z0-9-]{1,63}/[a-z0-9.-]{1,253}$")
    """To whom it gives it: `namespace/name`."""
    kubernetes_quota_cpu_cores: float = Field(100.0, gt=0, le=1_000_000)
    kubernetes_quota_memory_bytes: int = Field(200 * 1024**3, gt=0)
    kubernetes_quota_pods: int = Field(500, ge=1, le=1_000_000)
    """What a tenant's namespace holds at most; what could never fit is refused when it is created."""
    kubernetes_agent_image: str | None = None
    """For agent types that name no image of their own. The SDK must be installed in it."""
    kubernetes_agent_command: Annotated[tuple[str, ...], NoDecode] = ("python3", "-P", "-m", "orchestration_agent")
    kubernetes_image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    kubernetes_image_pull_secrets: Annotated[tuple[str, ...], NoDecode] = ()
    kubernetes_agent_cpu_cores: float = Field(0.25, gt=0, le=1024)
    kubernetes_agent_memory_bytes: int = Field(256 * 1024**2, ge=16 * 1024**2)
    """Of agents for which neither the definition nor the catalogue says more."""
    kubernetes_priority_class: str | None = Field(None, pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
    kubernetes_pod_user: int = Field(65532, ge=1, le=2**31 - 1)
    """The user id of agents' processes."""
    kubernetes_grace_seconds: int = Field(15, ge=0, le=3600)
    """Between SIGTERM and SIGKILL when a pod is deleted."""
    kubernetes_redis_url: SecretStr | None = None
    """Where pods reach Redis; `redis_url` when absent. The login in it is replaced by the tenant's own."""
    kubernetes_redis_networks: Annotated[tuple[str, ...], NoDecode] = ()
    """Networks (CIDR) in which Redis is, for the network policy; any address, at Redis' port, when absent."""
    kubernetes_request_seconds: float = Field(10.0, gt=0, le=300)
    """Deadline of a call of the Kubernetes API."""
    kubernetes_creates_max: int = Field(20, ge=1, le=500)
    """Pods that one allocation has made at the same time."""
    kubernetes_start_seconds: float = Field(60.0, gt=0, le=3600)
    """A pod that runs for so long and whose agent has not registered is replaced."""

    # Versions of workers
    worker_deployment_name: str | None = Field(None, pattern=r"^[A-Za-z0-9_-]{1,100}$")
    """Temporal's worker deployment; workers have no version without it."""
    worker_build_id: str | None = Field(None, pattern=r"^[A-Za-z0-9._-]{1,100}$")
    """The engine's own version when absent."""
    worker_versioning: Literal["auto_upgrade", "pinned"] = "auto_upgrade"
    """Whether running executions move to the version that becomes current, or stay with theirs."""

    # Hooks
    hooks_enabled: bool = True
    """The switch that turns all hooks of all tenants off."""
    hooks_circuit_failures: int = Field(5, ge=1, le=1000)
    """Failures in a row after which a hook is switched off for a while."""
    hooks_circuit_seconds: float = Field(60.0, gt=0, le=3600)
    """For how long, the first time; twice as long each further time in a row."""
    hooks_slots: int = Field(16, ge=1, le=1000)
    """Hooks that one hook worker runs at once."""
    hooks_lease_seconds: float = Field(15.0, ge=1, le=600)
    """After so long without a word from its worker, what a hook worker had taken up goes to another."""

    # Hooks' actions
    hooks_commands: Annotated[tuple[str, ...], NoDecode] = ("ruff", "pytest", "git", "curl")
    """The commands that hooks may run; others than these four are not known."""
    hooks_command_path: Annotated[tuple[str, ...], NoDecode] = ()
    """Directories that are searched for them; the engine's own environment and the system's when empty."""
    hooks_functions: Annotated[tuple[str, ...], NoDecode] = ()
    """Registered functions that hooks may call; all of them when empty."""
    hooks_work_dir: Path | None = None
    """Where the tenants' working directories are; `work` in the data directory when absent."""
    hooks_sandbox: Literal["auto", "namespaces", "bubblewrap", "off"] = "auto"
    hooks_unsandboxed_code: bool = False
    """Whether commands that run code of the working directory (pytest) may do so where there is no sandbox."""
    hooks_memory_bytes_max: int = Field(1024**3, ge=64 * 1024**2)
    hooks_processes_max: int = Field(64, ge=1, le=4096)
    hooks_file_bytes_max: int = Field(64 * 1024**2, ge=1024)
    """The largest file that a command may write."""
    hooks_written_bytes_max: int = Field(1024**3, ge=1024)
    """What a command may write to disks in all."""
    hooks_output_bytes_max: int = Field(64 * 1024, ge=1024, le=256 * 1024)
    """How much of an output is kept."""
    hooks_output_read_bytes_max: int = Field(16 * 1024**2, ge=1024)
    """A command that writes more is killed."""
    hooks_timeout_seconds_max: float = Field(600.0, gt=0)
    hooks_pytest_plugins: Annotated[tuple[str, ...], NoDecode] = ()
    """Plugins that pytest loads; those that happen to be installed are not."""
    hooks_http_allowed: Annotated[tuple[str, ...], NoDecode] = ()
    """Hosts (`name` or `name:port`) and networks that curl may reach although they are private."""
    hooks_http_redirects_max: int = Field(5, ge=0, le=20)
    hooks_function_threads: int = Field(16, ge=1, le=256)
    hooks_secrets_dir: Path | None = None
    """Files `<tenant>/<id>`, as Kubernetes mounts Secrets; none when absent."""
    hooks_kubernetes_secret: str | None = Field(None, pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
    """The Kubernetes Secret in each tenant's namespace whose keys are ids of secrets; none is asked for when absent."""

    hooks_job_image: str | None = Field(None, min_length=1, max_length=500)
    """Where there is no sandbox, commands that run code run in it, each as a Kubernetes Job; refused without."""
    hooks_job_namespace: str = Field("orchestrator-hooks", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    hooks_job_volume_claim: str | None = Field(None, pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")
    """The volume of `hooks_work_dir`, by its claim in that namespace; Jobs have an empty directory when absent."""
    hooks_job_cpu_cores: float = Field(1.0, gt=0, le=64)

    # Retention
    retention_days: float = Field(30.0, ge=1)
    """A closed execution is deleted with everything of it so long after its end."""
    journal_retention_days: float = Field(1.0, ge=0)
    """Its tick journal, which is only needed until Temporal has closed it too."""
    gone_host_retention_days: float = Field(7.0, ge=1)
    idempotency_days: float = Field(7.0, ge=1)
    operation_log_days: float = Field(400.0, ge=1)
    hook_execution_days: float = Field(7.0, gt=0)
    """Records of hooks' runs; also entries of the queue that no worker has taken up in all that time."""

    reuse_days: float = Field(7.0, gt=0)
    """How long the results of tasks with `reuse` are kept for others."""

    # Data
    data_dir: Path = Path(".data")
    log_level: str = "INFO"
    log_json: bool = False

    @field_validator(
        "allowed_origins",
        "trusted_proxies",
        "kubernetes_agent_command",
        "kubernetes_image_pull_secrets",
        "kubernetes_redis_networks",
        "hooks_commands",
        "hooks_command_path",
        "hooks_functions",
        "hooks_pytest_plugins",
        "hooks_http_allowed",
        mode="before",
    )
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(filter(None, (item.strip() for item in value.split(","))))
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, SecretFiles(settings_cls), dotenv_settings, file_secret_settings

    @property
    def capacity(self) -> CapacityLimits:
        cores = self.capacity_cpu_cores_max
        return CapacityLimits(
            executions=self.capacity_executions_max,
            agents=self.capacity_agents_max,
            cpu_micros=None if cores is None else round(cores * MICROS),
            memory_bytes=self.capacity_memory_bytes_max,
            tenant_executions=self.tenant_executions_max,
            waiting=self.queue_waiting_max,
        )
