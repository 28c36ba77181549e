//! The configuration file of a bed, as values a scenario can change.

use std::{fmt::Write, net::SocketAddrV4, path::Path};

use lb_user::pure::config::model::Forward;

use super::{Bed, topology::SERVICE_PORT};

#[derive(Debug, Clone)]
pub struct Config {
    pub interfaces: Vec<String>,
    /// auto | native | generic
    pub mode: &'static str,
    pub services: Vec<Service>,
}

#[derive(Debug, Clone)]
pub struct Service {
    pub name: String,
    pub address: SocketAddrV4,
    pub forward: Forward,
    /// reset | drop
    pub no_server: &'static str,
    /// None: the defaults.
    pub idle_timeout: Option<&'static str>,
    pub check: Check,
    pub servers: Vec<Member>,
}

#[derive(Debug, Clone)]
pub struct Member {
    pub name: String,
    pub address: SocketAddrV4,
    pub weight: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    None,
    /// Up after 2 passes, down after `FALL` failures, one check every `INTERVAL_MS`.
    Tcp,
}

impl Config {
    /// One service, `web`, TCP and UDP on port 80 of the VIP, with all of the bed's servers at weight 1.
    pub fn of(bed: &Bed) -> Config {
        let members = bed.servers.iter().map(|server| Member {
            name: server.name.clone(),
            address: server.listens[0],
            weight: 1,
        });
        let web = Service {
            name: "web".to_owned(),
            address: bed.vip_port(SERVICE_PORT),
            forward: bed.layout.forward,
            no_server: "reset",
            idle_timeout: None,
            check: Check::Tcp,
            servers: members.collect(),
        };
        let interfaces = bed.layout.interfaces().iter().map(|name| (*name).to_owned()).collect();
        Config { interfaces, mode: "native", services: vec![web] }
    }

    /// A second service on another port of the VIP, otherwise as `web`.
    pub fn add(&mut self, name: &str, port: u16) -> &mut Service {
        let mut service = self.services[0].clone();
        name.clone_into(&mut service.name);
        service.address.set_port(port);
        if service.forward == Forward::Dsr {
            service.servers.iter_mut().for_each(|server| server.address.set_port(port));
        }
        let index = self.services.len();
        self.services.push(service);
        &mut self.services[index]
    }

    pub(super) fn to_toml(&self, socket: &Path, pin: &Path) -> String {
        let mut text = format!(
            "[global]\nnode = \"bed\"\nadmin_socket = {socket:?}\n\n[cluster]\nsecret = \"of the bed\"\n\n\
             [datapath]\ninterfaces = {:?}\nmode = \"{}\"\npin = {pin:?}\n",
            self.interfaces, self.mode
        );
        for service in &self.services {
            service.write(&mut text).expect("writing to a String does not fail");
        }
        text
    }
}

impl Service {
    fn write(&self, text: &mut String) -> std::fmt::Result {
        writeln!(text, "\n[[service]]\nname = {:?}\naddress = \"{}\"", self.name, self.address.ip())?;
        writeln!(text, "port = {}\nprotocol = \"both\"", self.address.port())?;
        writeln!(text, "forward = \"{}\"\nno_server = \"{}\"", self.forward.name(), self.no_server)?;
        if let Some(idle) = self.idle_timeout {
            writeln!(text, "idle_timeout = \"{idle}\"")?;
        }
        writeln!(text, "server = [")?;
        for Member { name, address, weight } in &self.servers {
            writeln!(text, "  {{ name = {name:?}, address = \"{address}\", weight = {weight} }},")?;
        }
        writeln!(text, "]\n[service.check]")?;
        match self.check {
            Check::None => writeln!(text, "type = \"none\""),
            Check::Tcp => writeln!(
                text,
                "type = \"tcp\"\ninterval = \"{INTERVAL_MS}ms\"\ntimeout = \"{INTERVAL_MS}ms\"\n\
                 rise = 2\nfall = {FALL}"
            ),
        }
    }
}

pub const INTERVAL_MS: u32 = 200;
pub const FALL: u32 = 3;
