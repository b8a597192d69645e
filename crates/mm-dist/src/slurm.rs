//! Node lists of Slurm.

use crate::{Error, Result};

/// The first host of the node list `nodes`: `gpu007` of `gpu[007-012,020],login1`.
pub(crate) fn first_host(nodes: &str) -> Result<String> {
    let wrong = || Error::Environment(format!("the node list `{nodes}` names no host"));
    let end = nodes.find([',', '[']).unwrap_or(nodes.len());
    let name = &nodes[..end];
    let host = match nodes[end..].strip_prefix('[') {
        None => name.to_owned(),
        Some(ranges) => {
            let (ranges, suffix) = ranges.split_once(']').ok_or_else(wrong)?;
            let first = ranges.split([',', '-']).next().unwrap_or_default();
            if first.is_empty() || !first.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(wrong());
            }
            let suffix = suffix.split(',').next().unwrap_or_default();
            format!("{name}{first}{suffix}")
        }
    };
    if host.is_empty() { Err(wrong()) } else { Ok(host) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_host_is_found_in_every_kind_of_list() {
        for (nodes, first) in [
            ("gpu1", "gpu1"),
            ("gpu1,gpu2", "gpu1"),
            ("gpu[007-012,020],login1", "gpu007"),
            ("rack2-[3,5]", "rack2-3"),
            ("n[1-2].cluster", "n1.cluster"),
            ("a,b[1-2]", "a"),
        ] {
            assert_eq!(first_host(nodes).unwrap(), first, "{nodes}");
        }
    }

    #[test]
    fn a_list_without_a_host_is_an_error() {
        for nodes in ["", "[", "gpu[", "gpu[]", "gpu[-2]", ",a"] {
            assert!(first_host(nodes).is_err(), "{nodes}");
        }
    }
}
