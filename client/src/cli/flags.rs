//! The flags of `run` and `create`, all that docker has; what they mean is in [`super::request`].

use clap::{Args, Subcommand};

/// What makes a container.
#[derive(Debug, Default, Args)]
pub(crate) struct Container {
    /// Streams that the caller sees: stdin, stdout, stderr
    #[arg(short, long, value_name = "list")]
    pub attach: Vec<String>,
    /// File that the container's id is written to; it must not be there
    #[arg(long, value_name = "string")]
    pub cidfile: Option<String>,
    /// Other command in place of the image's entrypoint; empty: none
    #[arg(long, value_name = "string")]
    pub entrypoint: Option<String>,
    /// Environment variable: NAME=VALUE, or NAME with the caller's value
    #[arg(short, long, value_name = "list")]
    pub env: Vec<String>,
    /// File with environment variables, one a line
    #[arg(long, value_name = "list")]
    pub env_file: Vec<String>,
    /// Host name inside
    #[arg(short = 'h', long, value_name = "string")]
    pub hostname: Option<String>,
    /// NIS domain name inside
    #[arg(long, value_name = "string")]
    pub domainname: Option<String>,
    /// Run a small init as process 1 that passes signals on and reaps
    #[arg(long)]
    pub init: bool,
    /// Keep standard input open
    #[arg(short, long)]
    pub interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    pub tty: bool,
    /// Label: NAME=VALUE
    #[arg(short, long, value_name = "list")]
    pub label: Vec<String>,
    /// File with labels, one a line
    #[arg(long, value_name = "list")]
    pub label_file: Vec<String>,
    /// Annotation for the OCI runtime: NAME=VALUE
    #[arg(long, value_name = "map")]
    pub annotation: Vec<String>,
    /// Log of its output: json-file or none
    #[arg(long, value_name = "string")]
    pub log_driver: Option<String>,
    /// Option of the log: max-size=10m, max-file=3
    #[arg(long, value_name = "list")]
    pub log_opt: Vec<String>,
    /// Name of the container; without it, one is made up
    #[arg(long, value_name = "string")]
    pub name: Option<String>,
    /// Platform of the image: os/arch[/variant]
    #[arg(long, value_name = "string")]
    pub platform: Option<String>,
    /// When the image is pulled: always, missing or never
    #[arg(long, value_name = "string", default_value = "missing")]
    pub pull: String,
    /// Do not show the pull
    #[arg(short, long)]
    pub quiet: bool,
    /// What happens after an exit: no, on-failure[:N], always or unless-stopped
    #[arg(long, value_name = "string", default_value = "no")]
    pub restart: String,
    /// Remove the container and its unnamed volumes when it ends
    #[arg(long)]
    pub rm: bool,
    /// OCI runtime: a program's path; without it, tare
    #[arg(long, value_name = "string")]
    pub runtime: Option<String>,
    /// Signal that stop sends first
    #[arg(long, value_name = "string")]
    pub stop_signal: Option<String>,
    /// Seconds that stop waits before it kills
    #[arg(long, value_name = "int")]
    pub stop_timeout: Option<i64>,
    /// User, and group: name or number, as in app:www or 1000:1000
    #[arg(short, long, value_name = "string")]
    pub user: Option<String>,
    /// Directory that the command starts in
    #[arg(short, long, value_name = "string")]
    pub workdir: Option<String>,
    #[command(flatten)]
    pub resources: Resources,
    #[command(flatten)]
    pub network: Network,
    #[command(flatten)]
    pub storage: Storage,
    #[command(flatten)]
    pub security: Security,
    #[command(flatten)]
    pub health: Health,
    #[command(flatten)]
    pub absent: Absent,
}

/// Limits: `update` has them too.
#[derive(Debug, Default, Args)]
pub(crate) struct Resources {
    /// Weight of its block I/O, 10 to 1000; 0: none
    #[arg(long, value_name = "uint16")]
    pub blkio_weight: Option<u16>,
    /// Length of a period of the CPU's limit, in microseconds
    #[arg(long, value_name = "int")]
    pub cpu_period: Option<i64>,
    /// CPU time in a period, in microseconds
    #[arg(long, value_name = "int")]
    pub cpu_quota: Option<i64>,
    /// Weight of its CPU time
    #[arg(short, long, value_name = "int")]
    pub cpu_shares: Option<i64>,
    /// CPUs it may use the time of, as in 1.5
    #[arg(long, value_name = "decimal")]
    pub cpus: Option<String>,
    /// CPUs it may run on, as in 0-3 or 0,1
    #[arg(long, value_name = "string")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes it may use, as in 0,1
    #[arg(long, value_name = "string")]
    pub cpuset_mems: Option<String>,
    /// Limit of its memory
    #[arg(short, long, value_name = "bytes")]
    pub memory: Option<String>,
    /// Memory it is brought back to when the host has little
    #[arg(long, value_name = "bytes")]
    pub memory_reservation: Option<String>,
    /// Limit of memory and swap together; -1: none
    #[arg(long, value_name = "bytes")]
    pub memory_swap: Option<String>,
    /// Limit of processes and threads; -1: none
    #[arg(long, value_name = "int")]
    pub pids_limit: Option<i64>,
}

/// Its network.
#[derive(Debug, Default, Args)]
pub(crate) struct Network {
    /// Line for /etc/hosts: NAME:ADDRESS; the address may be host-gateway
    #[arg(long, value_name = "list")]
    pub add_host: Vec<String>,
    /// Name server
    #[arg(long, value_name = "list")]
    pub dns: Vec<String>,
    /// Option of resolv.conf(5)
    #[arg(long, visible_alias = "dns-opt", value_name = "list")]
    pub dns_option: Vec<String>,
    /// Domain that short names are looked up in
    #[arg(long, value_name = "list")]
    pub dns_search: Vec<String>,
    /// Port, or range of ports, that it serves
    #[arg(long, value_name = "list")]
    pub expose: Vec<String>,
    /// IPv4 address in its network
    #[arg(long, value_name = "string")]
    pub ip: Option<String>,
    /// IPv6 address in its network
    #[arg(long, value_name = "string")]
    pub ip6: Option<String>,
    /// Another container that it knows by this name: CONTAINER[:NAME]
    #[arg(long, value_name = "list")]
    pub link: Vec<String>,
    /// Address of its interface, as in 92:d0:c6:0a:29:33
    #[arg(long, value_name = "string")]
    pub mac_address: Option<String>,
    /// Network: bridge, host, none, container:NAME, or one made by network create
    #[arg(long, visible_alias = "net", value_name = "network")]
    pub network: Vec<String>,
    /// Another name of it in its network
    #[arg(long, visible_alias = "net-alias", value_name = "list")]
    pub network_alias: Vec<String>,
    /// Port of the host that leads to one of it: [[ADDRESS:]PORT:]PORT[/udp]
    #[arg(short, long, value_name = "list")]
    pub publish: Vec<String>,
    /// All ports that it serves get one of the host
    #[arg(short = 'P', long)]
    pub publish_all: bool,
}

/// Its files.
#[derive(Debug, Default, Args)]
pub(crate) struct Storage {
    /// Mount: type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long, value_name = "mount")]
    pub mount: Vec<String>,
    /// Its root cannot be written
    #[arg(long)]
    pub read_only: bool,
    /// Size of /dev/shm
    #[arg(long, value_name = "bytes")]
    pub shm_size: Option<String>,
    /// File system in memory: DIRECTORY[:OPTIONS]
    #[arg(long, value_name = "list")]
    pub tmpfs: Vec<String>,
    /// Volume or directory of the host: [SOURCE:]DIRECTORY[:ro]
    #[arg(short, long, value_name = "list")]
    pub volume: Vec<String>,
    /// Container whose volumes it gets too: NAME[:ro]
    #[arg(long, value_name = "list")]
    pub volumes_from: Vec<String>,
}

/// What it may do, and what it shares.
#[derive(Debug, Default, Args)]
pub(crate) struct Security {
    /// Capability more than usual, as in NET_ADMIN; ALL
    #[arg(long, value_name = "list")]
    pub cap_add: Vec<String>,
    /// Capability fewer than usual; ALL
    #[arg(long, value_name = "list")]
    pub cap_drop: Vec<String>,
    /// Cgroup that its own is made in
    #[arg(long, value_name = "string")]
    pub cgroup_parent: Option<String>,
    /// Cgroup namespace: private or host
    #[arg(long, value_name = "string")]
    pub cgroupns: Option<String>,
    /// Device of the host: DEVICE[:IN-CONTAINER[:rwm]]
    #[arg(long, value_name = "list")]
    pub device: Vec<String>,
    /// Rule of the devices it may use, as in 'c 42:* rmw'
    #[arg(long, value_name = "list")]
    pub device_cgroup_rule: Vec<String>,
    /// Group that its user is in too
    #[arg(long, value_name = "list")]
    pub group_add: Vec<String>,
    /// IPC namespace: private, shareable, none, host or container:NAME
    #[arg(long, value_name = "string")]
    pub ipc: Option<String>,
    /// How soon the kernel kills it when memory lacks: -1000 to 1000
    #[arg(long, value_name = "int")]
    pub oom_score_adj: Option<i64>,
    /// Let it wait instead of being killed when it has all of its memory
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// How much of its memory may be swapped out: 0 to 100
    #[arg(long, value_name = "int")]
    pub memory_swappiness: Option<i64>,
    /// Process namespace: host or container:NAME
    #[arg(long, value_name = "string")]
    pub pid: Option<String>,
    /// Let it do everything
    #[arg(long)]
    pub privileged: bool,
    /// seccomp=FILE|unconfined, apparmor=PROFILE, label=…, no-new-privileges, systempaths=unconfined
    #[arg(long, value_name = "list")]
    pub security_opt: Vec<String>,
    /// Kernel parameter: NAME=VALUE
    #[arg(long, value_name = "map")]
    pub sysctl: Vec<String>,
    /// Limit of its processes: NAME=SOFT[:HARD]
    #[arg(long, value_name = "ulimit")]
    pub ulimit: Vec<String>,
    /// User namespace: host
    #[arg(long, value_name = "string")]
    pub userns: Option<String>,
    /// UTS namespace: host
    #[arg(long, value_name = "string")]
    pub uts: Option<String>,
}

/// How it is seen whether it is well.
#[derive(Debug, Default, Args)]
pub(crate) struct Health {
    /// Command that succeeds while it is well
    #[arg(long, value_name = "string")]
    pub health_cmd: Option<String>,
    /// Time between two checks
    #[arg(long, value_name = "duration")]
    pub health_interval: Option<String>,
    /// So many failures in a row are too many
    #[arg(long, value_name = "int")]
    pub health_retries: Option<i64>,
    /// Time between two checks at first
    #[arg(long, value_name = "duration")]
    pub health_start_interval: Option<String>,
    /// Time at first in which failures do not count
    #[arg(long, value_name = "duration")]
    pub health_start_period: Option<String>,
    /// Time that a check may take
    #[arg(long, value_name = "duration")]
    pub health_timeout: Option<String>,
    /// Do not check, whatever its image says
    #[arg(long)]
    pub no_healthcheck: bool,
}

/// Flags of docker that are refused, by a sentence of their own, or that say nothing here.
#[derive(Debug, Default, Args)]
pub(crate) struct Absent {
    #[arg(long, value_name = "list", hide = true)]
    pub blkio_weight_device: Vec<String>,
    #[arg(long, value_name = "int", hide = true)]
    pub cpu_rt_period: Option<String>,
    #[arg(long, value_name = "int", hide = true)]
    pub cpu_rt_runtime: Option<String>,
    #[arg(long, value_name = "list", hide = true)]
    pub device_read_bps: Vec<String>,
    #[arg(long, value_name = "list", hide = true)]
    pub device_read_iops: Vec<String>,
    #[arg(long, value_name = "list", hide = true)]
    pub device_write_bps: Vec<String>,
    #[arg(long, value_name = "list", hide = true)]
    pub device_write_iops: Vec<String>,
    #[arg(long, hide = true)]
    pub disable_content_trust: bool,
    #[arg(long, value_name = "gpu-request", hide = true)]
    pub gpus: Option<String>,
    #[arg(long, value_name = "string", hide = true)]
    pub isolation: Option<String>,
    #[arg(long, value_name = "bytes", hide = true)]
    pub kernel_memory: Option<String>,
    #[arg(long, value_name = "list", hide = true)]
    pub link_local_ip: Vec<String>,
    #[arg(long, value_name = "list", hide = true)]
    pub storage_opt: Vec<String>,
    #[arg(long, hide = true)]
    pub use_api_socket: bool,
    #[arg(long, value_name = "string", hide = true)]
    pub volume_driver: Option<String>,
}

/// The image and its command: everything from the first word that is no flag.
#[derive(Debug, Subcommand)]
pub(crate) enum Words {
    /// The image first.
    #[command(external_subcommand)]
    Words(Vec<String>),
}

impl Words {
    /// The first word, and the others.
    pub(crate) fn split(&self) -> (&str, &[String]) {
        let Self::Words(words) = self;
        words.split_first().map_or(("", &[]), |(first, rest)| (first.as_str(), rest))
    }
}
