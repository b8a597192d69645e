//! The size of a process group, the part that runs on this node, and the environment of each rank.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::str::FromStr;
use std::{env, process, thread};

use anyhow::{Context, Result, bail};
use clap::value_parser;

/// The most processes on one node. A larger number is a mistake: no node has as many GPUs.
pub const MAX_NPROC: u32 = 256;
const MAX_NNODES: i64 = 65_536;

/// The options of a process group, named as torchrun names them.
#[derive(clap::Args, Default)]
pub struct Options {
    /// Start N processes on this node, one a GPU, that work as one
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MAX_NPROC as i64))]
    nproc: Option<u32>,
    /// The number of nodes; each runs the same command with its own --node-rank
    #[arg(long, value_name = "M", value_parser = value_parser!(u32).range(1..=MAX_NNODES))]
    nnodes: Option<u32>,
    /// The number of this node, from 0
    #[arg(long, value_name = "R")]
    node_rank: Option<u32>,
    /// The rendezvous of several nodes: an address of node 0 with a free port
    #[arg(long, value_name = "HOST:PORT")]
    rdzv: Option<Address>,
}

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq)]
struct Address {
    host: String,
    port: u16,
}

/// A process group, seen from this node.
#[derive(Debug)]
pub struct Group {
    /// Processes on each node.
    pub nproc: u32,
    nnodes: u32,
    node_rank: u32,
    master: Address,
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "expected HOST:PORT, as node1:29500 or [fe80::1]:29500";
        let (host, port) = text.rsplit_once(':').ok_or(expected)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        match (bare.unwrap_or(host), port.parse()) {
            (host, Ok(port)) if port > 0 && !host.is_empty() && (bare.is_some() || !host.contains(':')) => {
                Ok(Self { host: host.to_owned(), port })
            }
            _ => Err(expected),
        }
    }
}

impl Options {
    /// The process group; `None` for a single process without `--nproc`. `default` replaces a missing
    /// `--nproc`.
    ///
    /// # Errors
    /// The options contradict each other, or this machine has no free port.
    pub fn group(&self, default: u32) -> Result<Option<Group>> {
        let Some(nproc) = self.nproc.or((default > 1).then_some(default)) else {
            if self.nnodes.is_some() || self.node_rank.is_some() || self.rdzv.is_some() {
                bail!("--nnodes, --node-rank and --rdzv need --nproc N, the number of processes on a node");
            }
            return Ok(None);
        };
        let (nnodes, node_rank, master) = match (self.nnodes, self.node_rank, &self.rdzv) {
            (None | Some(1), None | Some(0), None) => return Group::on_this_node(nproc).map(Some),
            (Some(nodes), Some(node), Some(address)) if node < nodes => (nodes, node, address.clone()),
            (Some(nodes), Some(node), _) if node >= nodes => {
                bail!(
                    "--node-rank {node} is out of range: {nodes} nodes are numbered from 0 to {}",
                    nodes - 1
                )
            }
            _ => bail!(
                "a group of nodes needs --nnodes M, --node-rank R and --rdzv HOST:PORT, an address of node 0"
            ),
        };
        Ok(Some(Group { nproc, nnodes, node_rank, master }))
    }
}

impl Group {
    /// A group on this node alone.
    ///
    /// # Errors
    /// This machine has no free port.
    pub fn on_this_node(nproc: u32) -> Result<Self> {
        let master = Address { host: "127.0.0.1".into(), port: free_port()? };
        Ok(Self { nproc, nnodes: 1, node_rank: 0, master })
    }

    /// The number of processes on all nodes.
    pub fn world_size(&self) -> u32 {
        self.nnodes * self.nproc
    }

    /// The rank in the whole group of process `local` of this node.
    pub fn rank(&self, local: u32) -> u32 {
        self.node_rank * self.nproc + local
    }

    /// Sets torchrun's variables for process `local` of this node.
    pub fn set_env(&self, local: u32, command: &mut Command) {
        let variables = [
            ("RANK", self.rank(local)),
            ("LOCAL_RANK", local),
            ("WORLD_SIZE", self.world_size()),
            ("LOCAL_WORLD_SIZE", self.nproc),
            ("MASTER_PORT", self.master.port.into()),
        ];
        command.envs(variables.map(|(name, value)| (name, value.to_string())));
        command.env("MASTER_ADDR", &self.master.host);
        command.env("MM_LAUNCHER", process::id().to_string()); // a rank ends with it
        // Set by a torchrun around this launcher, it would make rank 0 look for a store that does not exist.
        command.env_remove("TORCHELASTIC_USE_AGENT_STORE");
        // By default each process uses all cores, and they would compete for them.
        if env::var_os("OMP_NUM_THREADS").is_none() {
            let cores = thread::available_parallelism().map_or(1, usize::from);
            command.env("OMP_NUM_THREADS", (cores / self.nproc as usize).max(1).to_string());
        }
    }
}

fn free_port() -> Result<u16> {
    let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    Ok(bound.context("cannot find a free port on 127.0.0.1")?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_and_a_port() {
        let address = |host: &str, port| Ok(Address { host: host.into(), port });
        assert_eq!("node1:29500".parse(), address("node1", 29_500));
        assert_eq!("[fe80::1]:1".parse(), address("fe80::1", 1));
        for wrong in ["node1", "node1:", ":29500", "node1:0", "node1:70000", "fe80::1:29500", "[]:1"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
