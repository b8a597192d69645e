//! The launch environment: torchrun, Slurm, Open MPI or a single process.

use crate::{Error, Result, slurm};

/// The place of a process in its launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Rank of the process, from 0.
    pub rank: usize,
    /// Number of processes.
    pub world: usize,
    /// Rank among the processes of this machine, from 0: the index of its GPU.
    pub local_rank: usize,
    /// Host of the rendezvous: the machine of rank 0.
    pub host: String,
    /// Port of the rendezvous.
    pub port: u16,
    /// Whether the launcher hosts the store of the rendezvous; otherwise rank 0 does.
    pub launcher_hosts_store: bool,
    /// Prefix of all keys in the store: torchrun restarts a failed run with the same store.
    pub prefix: String,
}

/// The default port of torch.distributed.
const DEFAULT_PORT: u16 = 29500;

impl Launch {
    /// A single process, without a rendezvous.
    pub fn alone() -> Self {
        let (host, prefix) = ("127.0.0.1".to_owned(), String::new());
        Self { rank: 0, world: 1, local_rank: 0, host, port: 0, launcher_hosts_store: false, prefix }
    }

    /// Reads the variables that torchrun, Kubernetes' PyTorchJob and `cargo xtask train` set (`RANK`,
    /// `WORLD_SIZE`, `LOCAL_RANK`, `MASTER_ADDR`, `MASTER_PORT`), else srun's variables, else Open MPI's.
    /// Without any of them: a single process.
    ///
    /// # Errors
    /// Variables that belong together are partly missing, are not numbers, or contradict each other.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
    }

    /// As [`Launch::from_env`], from any variables.
    ///
    /// # Errors
    /// As [`Launch::from_env`].
    pub fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self> {
        let variables = Variables(variable);
        let launch = if variable("RANK").is_some() || variable("WORLD_SIZE").is_some() {
            variables.torchrun()?
        } else if variable("SLURM_PROCID").is_some() {
            variables.slurm()?
        } else if variable("OMPI_COMM_WORLD_RANK").is_some() {
            variables.open_mpi()?
        } else {
            Self::alone()
        };
        if launch.rank >= launch.world {
            return Err(Error::Environment(format!(
                "rank {} of {} processes: ranks go from 0 to {}",
                launch.rank,
                launch.world,
                launch.world.saturating_sub(1)
            )));
        }
        Ok(launch)
    }
}

/// The variables of the environment.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Variables<'_> {
    fn torchrun(&self) -> Result<Launch> {
        let (rank, world) = (self.needed("RANK", "WORLD_SIZE")?, self.needed("WORLD_SIZE", "RANK")?);
        let local_rank = self.number("LOCAL_RANK")?.unwrap_or(0);
        let alone = Launch { rank, world, local_rank, ..Launch::alone() };
        if world == 1 {
            return Ok(alone);
        }
        let attempt = self.text("TORCHELASTIC_RESTART_COUNT").unwrap_or_else(|| "0".to_owned());
        Ok(Launch {
            host: self
                .text("MASTER_ADDR")
                .ok_or_else(|| missing("MASTER_ADDR", "RANK and WORLD_SIZE are"))?,
            port: self
                .number("MASTER_PORT")?
                .ok_or_else(|| missing("MASTER_PORT", "RANK and WORLD_SIZE are"))?,
            launcher_hosts_store: self
                .text("TORCHELASTIC_USE_AGENT_STORE")
                .is_some_and(|value| value == "True"),
            prefix: format!("/mm/attempt_{attempt}"),
            ..alone
        })
    }

    fn slurm(&self) -> Result<Launch> {
        let tasks =
            if self.text("SLURM_STEP_NUM_TASKS").is_some() { "SLURM_STEP_NUM_TASKS" } else { "SLURM_NTASKS" };
        let (rank, world) = (self.needed("SLURM_PROCID", "")?, self.number(tasks)?.unwrap_or(1));
        let local_rank = self.number("SLURM_LOCALID")?.unwrap_or(0);
        let nodes = ["SLURM_STEP_NODELIST", "SLURM_NODELIST", "SLURM_JOB_NODELIST"]
            .into_iter()
            .find_map(|name| self.text(name));
        let host = match (self.text("MASTER_ADDR"), nodes) {
            (Some(host), _) => host,
            (None, Some(nodes)) => slurm::first_host(&nodes)?,
            (None, None) if world == 1 => Launch::alone().host,
            (None, None) => return Err(missing("SLURM_NODELIST or MASTER_ADDR", "SLURM_PROCID is")),
        };
        // Two jobs on one node need different ports: the port is derived from the job id.
        let job: u64 = self.number("SLURM_JOB_ID")?.unwrap_or(0);
        let port = self.number("MASTER_PORT")?.unwrap_or(15_000 + (job % 20_000) as u16);
        Ok(Launch { rank, world, local_rank, host, port, ..Launch::alone() })
    }

    fn open_mpi(&self) -> Result<Launch> {
        let rank = self.needed("OMPI_COMM_WORLD_RANK", "")?;
        let world = self.needed("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK")?;
        let local_rank = self.number("OMPI_COMM_WORLD_LOCAL_RANK")?.unwrap_or(0);
        let is_one_machine = self.number::<usize>("OMPI_COMM_WORLD_LOCAL_SIZE")? == Some(world);
        let host = match self.text("MASTER_ADDR") {
            Some(host) => host,
            None if is_one_machine => Launch::alone().host,
            None => {
                return Err(missing(
                    "MASTER_ADDR",
                    "OMPI_COMM_WORLD_RANK is; pass it with mpirun -x MASTER_ADDR=HOST",
                ));
            }
        };
        let port = self.number("MASTER_PORT")?.unwrap_or(DEFAULT_PORT);
        Ok(Launch { rank, world, local_rank, host, port, ..Launch::alone() })
    }

    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name)
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let Some(value) = self.text(name) else { return Ok(None) };
        value
            .trim()
            .parse()
            .map(Some)
            .map_err(|_| Error::Environment(format!("{name}={value} is not a number in range")))
    }

    fn needed(&self, name: &str, beside: &str) -> Result<usize> {
        self.number(name)?.ok_or_else(|| missing(name, &format!("{beside} is")))
    }
}

fn missing(name: &str, beside: &str) -> Error {
    Error::Environment(format!("{name} is not set, but {beside}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(variables: &[(&str, &str)]) -> Result<Launch> {
        Launch::from_variables(&|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn no_variables_are_one_process() {
        assert_eq!(launch(&[]).unwrap(), Launch::alone());
        assert_eq!(launch(&[("RANK", "0"), ("WORLD_SIZE", "1")]).unwrap(), Launch::alone());
    }

    #[test]
    fn the_variables_of_torchrun_are_read_with_its_own_store() {
        let base = [("RANK", "3"), ("WORLD_SIZE", "4"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "77")];
        let plain = launch(&base).unwrap();
        assert_eq!((plain.rank, plain.world, plain.local_rank), (3, 4, 0));
        assert_eq!((plain.host.as_str(), plain.port, plain.launcher_hosts_store), ("a", 77, false));
        let more = [
            ("LOCAL_RANK", "1"),
            ("TORCHELASTIC_USE_AGENT_STORE", "True"),
            ("TORCHELASTIC_RESTART_COUNT", "2"),
        ];
        let held = launch(&[&base[..], &more].concat()).unwrap();
        assert_eq!(
            (held.local_rank, held.launcher_hosts_store, held.prefix.as_str()),
            (1, true, "/mm/attempt_2")
        );
    }

    #[test]
    fn the_variables_of_srun_lead_to_the_first_node_and_a_port_of_the_job() {
        let variables = [
            ("SLURM_PROCID", "9"),
            ("SLURM_NTASKS", "16"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_NODELIST", "gpu[007-008]"),
            ("SLURM_JOB_ID", "123456"),
        ];
        let launch = launch(&variables).unwrap();
        assert_eq!((launch.rank, launch.world, launch.local_rank), (9, 16, 1));
        assert_eq!((launch.host.as_str(), launch.port), ("gpu007", 15_000 + 3_456));
    }

    #[test]
    fn open_mpi_on_one_machine_needs_no_address_and_on_several_does() {
        let base = [
            ("OMPI_COMM_WORLD_RANK", "1"),
            ("OMPI_COMM_WORLD_SIZE", "2"),
            ("OMPI_COMM_WORLD_LOCAL_RANK", "1"),
        ];
        let one = launch(&[&base[..], &[("OMPI_COMM_WORLD_LOCAL_SIZE", "2")]].concat()).unwrap();
        assert_eq!((one.host.as_str(), one.port), ("127.0.0.1", 29500));
        let several = launch(&[&base[..], &[("OMPI_COMM_WORLD_LOCAL_SIZE", "1")]].concat());
        assert!(several.unwrap_err().to_string().contains("MASTER_ADDR is not set"));
    }

    #[test]
    fn contradictions_are_errors() {
        let problem = |variables: &[(&str, &str)]| launch(variables).unwrap_err().to_string();
        assert!(problem(&[("RANK", "0")]).contains("WORLD_SIZE is not set"));
        assert!(problem(&[("RANK", "0"), ("WORLD_SIZE", "2")]).contains("MASTER_ADDR is not set"));
        assert!(problem(&[("RANK", "x"), ("WORLD_SIZE", "2")]).contains("RANK=x is not a number"));
        let high = [("RANK", "2"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "a"), ("MASTER_PORT", "1")];
        assert!(problem(&high).contains("rank 2 of 2 processes: ranks go from 0 to 1"));
    }
}
