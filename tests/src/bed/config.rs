//! The configuration file of a bed, as values a scenario can change.

use std::{
    fmt::{self, Display, Write},
    net::{IpAddr, SocketAddr},
    path::Path,
};

use super::{Bed, Family, Forward, layout::SERVICE_PORT};

#[derive(Debug, Clone)]
pub struct Config {
    pub interfaces: Vec<String>,
    /// auto | native | generic
    pub mode: &'static str,
    /// Empty: the default.
    pub nat_source: Vec<IpAddr>,
    /// None: the default, as for the next.
    pub flows: Option<u32>,
    pub watchdog: Option<&'static str>,
    pub services: Vec<Service>,
}

#[derive(Debug, Clone)]
pub struct Service {
    pub name: String,
    /// "10.0.5.96", "2001:db8::/64"
    pub addresses: Vec<String>,
    pub ports: Ports,
    /// tcp | udp | both
    pub protocol: &'static str,
    pub forward: Forward,
    /// maglev | source | roundrobin | leastconn; None: the default, as for every option below.
    pub balance: Option<&'static str>,
    pub persistence: Option<&'static str>,
    pub idle_timeout: Option<&'static str>,
    pub mss: Option<u16>,
    pub slots: Option<u32>,
    /// Client networks; empty: everybody.
    pub allow: Vec<String>,
    pub deny: Vec<String>,
    /// reset | drop
    pub no_server: &'static str,
    pub check: Check,
    /// None: the server's port.
    pub check_port: Option<u16>,
    /// Checks go through the data path.
    pub check_through: bool,
    pub servers: Vec<Member>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    One(u16),
    /// First and last.
    Range(u16, u16),
    Any,
}

#[derive(Debug, Clone)]
pub struct Member {
    pub name: String,
    /// Port 0: written without a port, packets keep theirs.
    pub address: SocketAddr,
    pub weight: u16,
    pub backup: bool,
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
        let web = Service {
            name: "web".to_owned(),
            addresses: vec![bed.vip().to_string()],
            ports: Ports::One(SERVICE_PORT),
            protocol: "both",
            forward: bed.layout.forward,
            balance: None,
            persistence: None,
            idle_timeout: None,
            mss: None,
            slots: None,
            allow: Vec::new(),
            deny: Vec::new(),
            no_server: "reset",
            check: Check::Tcp,
            check_port: None,
            check_through: false,
            servers: members(bed, bed.layout.server_family, "").collect(),
        };
        let interfaces = bed.layout.interfaces().iter().map(|name| (*name).to_owned()).collect();
        Config {
            interfaces,
            mode: "native",
            nat_source: Vec::new(),
            flows: None,
            watchdog: None,
            services: vec![web],
        }
    }

    /// As `of`, with the VIPs of both families and every server once in each: `web1-v4`, `web1-v6`, ...
    pub fn of_both_families(bed: &Bed) -> Config {
        let mut config = Config::of(bed);
        let web = &mut config.services[0];
        web.addresses = Family::BOTH.map(|family| bed.vip_of(family).to_string()).into();
        web.servers = [(Family::V4, "-v4"), (Family::V6, "-v6")]
            .into_iter()
            .flat_map(|(family, suffix)| members(bed, family, suffix))
            .collect();
        config
    }

    /// A second service on another port of the VIP, otherwise as `web`.
    pub fn add(&mut self, name: &str, port: u16) -> &mut Service {
        let mut service = self.services[0].clone();
        name.clone_into(&mut service.name);
        service.ports = Ports::One(port);
        if service.forward.keeps_vip() {
            service.servers.iter_mut().for_each(|server| server.address.set_port(port));
        }
        let index = self.services.len();
        self.services.push(service);
        &mut self.services[index]
    }

    pub fn to_toml(&self, socket: &Path, state: &Path, pin: &Path) -> String {
        let mut text = format!(
            "[global]\nnode = \"bed\"\nadmin_socket = {socket:?}\nstate = {state:?}\n\n[cluster]\nsecret = \"of the bed\"\n\n\
             [datapath]\ninterfaces = {:?}\nmode = \"{}\"\npin = {pin:?}\n",
            self.interfaces, self.mode
        );
        self.write(&mut text).expect("writing to a String does not fail");
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        if !self.nat_source.is_empty() {
            writeln!(text, "nat_source = {}", list(&self.nat_source))?;
        }
        if let Some(flows) = self.flows {
            writeln!(text, "flows = {flows}")?;
        }
        if let Some(watchdog) = self.watchdog {
            writeln!(text, "watchdog = {watchdog:?}")?;
        }
        self.services.iter().try_for_each(|service| service.write(text))
    }
}

impl Service {
    /// A range has no port that all servers could listen on: packets keep theirs, and checks need one.
    pub fn set_ports(&mut self, ports: Ports, check_port: u16) {
        self.ports = ports;
        self.check_port = Some(check_port);
        self.servers.iter_mut().for_each(|server| server.address.set_port(0));
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        writeln!(text, "\n[[service]]\nname = {:?}\naddress = {}", self.name, list(&self.addresses))?;
        writeln!(text, "port = {}\nprotocol = {:?}", self.ports, self.protocol)?;
        writeln!(text, "forward = {:?}\nno_server = {:?}", self.forward.name(), self.no_server)?;
        self.write_options(text)?;
        writeln!(text, "server = [")?;
        self.servers.iter().try_for_each(|server| writeln!(text, "  {server},"))?;
        writeln!(text, "]\n[service.check]")?;
        if self.check == Check::None {
            return writeln!(text, "type = \"none\"");
        }
        if let Some(port) = self.check_port {
            writeln!(text, "port = {port}")?;
        }
        if self.check_through {
            writeln!(text, "through = \"datapath\"")?;
        }
        writeln!(
            text,
            "type = \"tcp\"\ninterval = \"{INTERVAL_MS}ms\"\ntimeout = \"{INTERVAL_MS}ms\"\n\
             rise = 2\nfall = {FALL}"
        )
    }

    fn write_options(&self, text: &mut String) -> fmt::Result {
        for (key, value) in [
            ("balance", self.balance),
            ("persistence", self.persistence),
            ("idle_timeout", self.idle_timeout),
        ] {
            if let Some(value) = value {
                writeln!(text, "{key} = {value:?}")?;
            }
        }
        if let Some(mss) = self.mss {
            writeln!(text, "mss = {mss}")?;
        }
        if let Some(slots) = self.slots {
            writeln!(text, "slots = {slots}")?;
        }
        for (key, networks) in [("allow", &self.allow), ("deny", &self.deny)] {
            if !networks.is_empty() {
                writeln!(text, "{key} = {}", list(networks))?;
            }
        }
        Ok(())
    }
}

impl Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ports::One(port) => write!(f, "{port}"),
            Ports::Range(first, last) => write!(f, "\"{first}-{last}\""),
            Ports::Any => f.write_str("\"any\""),
        }
    }
}

impl Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{ name = {:?}, weight = {}, address = ", self.name, self.weight)?;
        match self.address.port() {
            0 => write!(f, "\"{}\"", self.address.ip())?,
            _ => write!(f, "\"{}\"", self.address)?,
        }
        f.write_str(if self.backup { ", backup = true }" } else { " }" })
    }
}

fn members(bed: &Bed, family: Family, suffix: &str) -> impl Iterator<Item = Member> {
    bed.servers.iter().map(move |server| Member {
        name: format!("{}{suffix}", server.name),
        address: server.at(family),
        weight: 1,
        backup: false,
    })
}

fn list(items: &[impl Display]) -> String {
    let items: Vec<String> = items.iter().map(|item| format!("\"{item}\"")).collect();
    format!("[{}]", items.join(", "))
}

pub const INTERVAL_MS: u32 = 200;
pub const FALL: u32 = 3;
