//! How large a process group is, which part of it runs on this node, and what tells a rank its place in it.

use std::net::{Ipv4Addr, TcpListener};
use std::process::Command;
use std::str::FromStr;
use std::{env, process, thread};

use anyhow::{Context, Result, bail};
use clap::value_parser;

/// More processes than this on one node are a slip of the hand: no node has as many GPUs.
const MOST_RANKS: i64 = 256;
const MOST_NODES: i64 = 65_536;

/// The options of a group, in the words of torchrun.
#[derive(clap::Args)]
pub struct Options {
    /// Start N processes on this node, one a GPU, that work as one
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=MOST_RANKS))]
    nproc: Option<u32>,
    /// The number of nodes; each runs the same command with its own --node-rank
    #[arg(long, value_name = "M", value_parser = value_parser!(u32).range(1..=MOST_NODES))]
    nnodes: Option<u32>,
    /// Which of the nodes this is, from 0
    #[arg(long, value_name = "R")]
    node_rank: Option<u32>,
    /// Where the processes of several nodes meet: an address of node 0, with a port that is free there
    #[arg(long, value_name = "HOST:PORT")]
    rdzv: Option<Address>,
}

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq)]
struct Address {
    host: String,
    port: u16,
}

/// A process group as this node sees it.
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
    /// The group that is asked for; `None` without `--nproc`.
    ///
    /// # Errors
    /// When the options do not fit together, or this machine has no free port.
    pub fn group(&self) -> Result<Option<Group>> {
        let Some(nproc) = self.nproc else {
            if self.nnodes.is_some() || self.node_rank.is_some() || self.rdzv.is_some() {
                bail!("--nnodes, --node-rank and --rdzv need --nproc N, the number of processes on a node");
            }
            return Ok(None);
        };
        let (nnodes, node_rank, master) = match (self.nnodes, self.node_rank, &self.rdzv) {
            (None | Some(1), None | Some(0), None) => return Group::on_this_node(nproc).map(Some),
            (Some(nodes), Some(node), Some(address)) if node < nodes => (nodes, node, address.clone()),
            (Some(nodes), Some(node), _) if node >= nodes => {
                bail!("--node-rank {node} is none of {nodes} nodes, which count from 0 to {}", nodes - 1)
            }
            _ => bail!(
                "a group of nodes needs --nnodes M, --node-rank R and --rdzv HOST:PORT, an address of node 0"
            ),
        };
        Ok(Some(Group { nproc, nnodes, node_rank, master }))
    }
}

impl Group {
    /// A group of this node alone.
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

    /// The number in the whole group of the process `local` of this node.
    pub fn rank(&self, local: u32) -> u32 {
        self.node_rank * self.nproc + local
    }

    /// Tells a command its place, by torchrun's variables.
    pub fn place(&self, local: u32, command: &mut Command) {
        let variables = [
            ("RANK", self.rank(local)),
            ("LOCAL_RANK", local),
            ("WORLD_SIZE", self.world_size()),
            ("LOCAL_WORLD_SIZE", self.nproc),
            ("MASTER_PORT", self.master.port.into()),
        ];
        command.envs(variables.map(|(name, value)| (name, value.to_string())));
        command.env("MASTER_ADDR", &self.master.host);
        command.env("MM_LAUNCHER", process::id().to_string()); // without which a rank ends too
        // Left over from a torchrun around us, it would make rank 0 look for a store that nobody serves at
        // our address.
        command.env_remove("TORCHELASTIC_USE_AGENT_STORE");
        // Each process alone would take all cores, and all of them together would wait for each other.
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
