//! Cuts the path: at the ports, or by the firewall of the hosts where there are no ports.

use std::io::Write;
use std::process::{Child, Stdio};

use outrider_drivers::netns::NetNamespace;

use super::sieve::{Lost, Mesh, Sieve};
use crate::error::BenchError;
use crate::lab::Lab;
use crate::place::run_tool;
use crate::under_load::{PORT, RECEIVER, SENDER};

/// What can cut the path of a lab. The ends are the sender's and the receiver's, as everywhere.
pub(super) enum Scissors {
    Ports([Mesh; 2]),
    Hosts([NetNamespace; 2]),
}

/// The firewall's table.
const TABLE: &str = "ip outrider_truth";

impl Scissors {
    /// Gets between the ports of `lab` and their shards, or takes its hosts.
    pub(super) fn of(lab: &mut Lab) -> Self {
        if let Some(hosts) = lab.hosts() {
            return Scissors::Hosts(hosts.namespaces.clone());
        }
        let mut meshes = Vec::new();
        lab.wrap_ports(|inner| {
            let mesh = Mesh::default();
            meshes.push(mesh.clone());
            Box::new(Sieve { inner, mesh })
        });
        let [near, far] = meshes.try_into().expect("a lab without hosts has two ports");
        Scissors::Ports([near, far])
    }

    /// Makes ready to lose what arrives at the ends given: `Connection` names the port that the sender dialled from.
    pub(super) fn open(&self, lost: Lost, ends: [bool; 2]) -> Result<Blades, BenchError> {
        match self {
            Scissors::Ports(meshes) => {
                let meshes = meshes.iter().zip(ends).filter(|(_, here)| *here);
                Ok(Blades::Ports(meshes.map(|(mesh, _)| mesh.clone()).collect(), lost))
            }
            Scissors::Hosts(hosts) => {
                let scripts = [script(lost, true), script(lost, false)];
                let here = hosts.iter().zip(scripts).zip(ends).filter(|(_, here)| *here);
                let firewalls = here.map(|((host, script), _)| Firewall::prepare(host, script));
                Ok(Blades::Hosts(firewalls.collect::<Result<_, _>>()?))
            }
        }
    }

    /// Lets everything pass again.
    pub(super) fn mend(&self) -> Result<(), BenchError> {
        match self {
            Scissors::Ports(meshes) => meshes.iter().for_each(|mesh| mesh.set(Lost::Nothing)),
            Scissors::Hosts(hosts) => {
                for host in hosts {
                    let flush = host.run(|| run_tool("nft", &["flush", "ruleset"], "nftables"));
                    flush.map_err(|error| BenchError::failed(format!("cannot mend the path: {error}")))??;
                }
            }
        }
        Ok(())
    }
}

/// Scissors that are open: closing them takes no time.
pub(super) enum Blades {
    Ports(Vec<Mesh>, Lost),
    Hosts(Vec<Firewall>),
}

impl Blades {
    /// Cuts.
    pub(super) fn close(self) -> Result<(), BenchError> {
        match self {
            Blades::Ports(meshes, lost) => meshes.iter().for_each(|mesh| mesh.set(lost)),
            Blades::Hosts(mut firewalls) => {
                // All are told before the first is waited for.
                firewalls.iter_mut().try_for_each(Firewall::fire)?;
                firewalls.into_iter().try_for_each(Firewall::finish)?;
            }
        }
        Ok(())
    }
}

/// The rules of the firewall at one end.
fn script(lost: Lost, at_sender: bool) -> String {
    let what = match lost {
        Lost::Nothing => return String::new(),
        Lost::Everything => String::new(),
        Lost::Connection(port) if at_sender => {
            format!("ip saddr {RECEIVER} ip daddr {SENDER} tcp sport {PORT} tcp dport {port} ")
        }
        Lost::Connection(port) => {
            format!("ip saddr {SENDER} ip daddr {RECEIVER} tcp sport {port} tcp dport {PORT} ")
        }
    };
    format!(
        "add table {TABLE}\nadd chain {TABLE} arriving {{ type filter hook input priority 0 ; }}\n\
         add rule {TABLE} arriving {what}drop\n"
    )
}

/// An `nft` that has started and waits for its rules, for starting it takes longer than an interval.
pub(super) struct Firewall {
    process: Child,
    script: String,
}

impl Firewall {
    fn prepare(host: &NetNamespace, script: String) -> Result<Self, BenchError> {
        let mut command = host.command("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn();
        let process = process.map_err(|error| {
            BenchError::failed(format!("cannot run nft: {error}; install the package nftables"))
        })?;
        Ok(Firewall { process, script })
    }

    fn fire(&mut self) -> Result<(), BenchError> {
        let input = self.process.stdin.take();
        let told = input.map_or(Ok(()), |mut input| input.write_all(self.script.as_bytes()));
        told.map_err(|error| BenchError::failed(format!("nft does not take its rules: {error}")))
    }

    fn finish(mut self) -> Result<(), BenchError> {
        match self.process.wait() {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => {
                Err(BenchError::failed(format!("nft refused the rules that cut the path: {status}")))
            }
            Err(error) => Err(BenchError::failed(format!("cannot wait for nft: {error}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_name_the_connection_as_it_arrives_at_each_end() {
        let at_sender = script(Lost::Connection(40_000), true);
        assert!(
            at_sender.contains("ip saddr 10.77.0.2 ip daddr 10.77.0.1 tcp sport 7077 tcp dport 40000 drop")
        );
        let at_receiver = script(Lost::Connection(40_000), false);
        assert!(
            at_receiver.contains("ip saddr 10.77.0.1 ip daddr 10.77.0.2 tcp sport 40000 tcp dport 7077 drop")
        );
        assert!(script(Lost::Everything, true).contains("arriving drop"));
    }
}
